;;; The library that every program may use: packets, statement by statement (with-...) and as expressions (parse-...).
;;; Names, shapes and sizes are the book's.

(defmacro with-packet ((data end &key (min-len 0)) &body body)
  `(let ((,data (xdp-data))
         (,end (xdp-data-end)))
     (when (> (+ ,data ,min-len) ,end)
       (return XDP_PASS))
     ,@body))

(defmacro with-tc-packet ((data end &key (min-len 0)) &body body)
  `(let ((,data (tc-data))
         (,end (tc-data-end)))
     (when (> (+ ,data ,min-len) ,end)
       (return TC_ACT_OK))
     ,@body))

(defmacro with-eth ((data end) &body body)
  `(with-packet (,data ,end :min-len +eth-hdr-len+) ,@body))

(defmacro with-tc-eth ((data end) &body body)
  `(with-tc-packet (,data ,end :min-len +eth-hdr-len+) ,@body))

;; What follows an Ethernet header directly, if its type says so.
(defmacro %when-ipv4 ((data ip) &body body)
  `(when (= (eth-type ,data) +ethertype-ipv4+)
     (let ((,ip (+ ,data +eth-hdr-len+)))
       ,@body)))

(defmacro with-ipv4 ((data end ip) &body body)
  `(with-packet (,data ,end :min-len (+ +eth-hdr-len+ +ipv4-hdr-len+))
     (%when-ipv4 (,data ,ip) ,@body)))

(defmacro with-tc-ipv4 ((data end ip) &body body)
  `(with-tc-packet (,data ,end :min-len (+ +eth-hdr-len+ +ipv4-hdr-len+))
     (%when-ipv4 (,data ,ip) ,@body)))

;; A transport header behind IPv4: at a fixed 20 bytes as the book has it, or, with :ihl t, where the header's own
;; length says, tested against the packet's end again.
(defmacro %with-l4 (packet (data end l4 ihl) proto len pass &body body)
  (let ((ip (gensym "ip")))
    `(,packet (,data ,end :min-len (+ +eth-hdr-len+ +ipv4-hdr-len+ ,len))
       (%when-ipv4 (,data ,ip)
         (when (= (ipv4-protocol ,ip) ,proto)
           ,(if ihl
                `(let ((,l4 (+ ,ip (<< (logand (ipv4-ver-ihl ,ip) 15) 2))))
                   (when (> (+ ,l4 ,len) ,end)
                     (return ,pass))
                   ,@body)
                `(let ((,l4 (+ ,ip +ipv4-hdr-len+)))
                   ,@body)))))))

(defmacro with-tcp ((data end tcp &key ihl) &body body)
  `(%with-l4 with-packet (,data ,end ,tcp ,ihl) +ip-proto-tcp+ +tcp-hdr-len+ XDP_PASS ,@body))

(defmacro with-udp ((data end udp &key ihl) &body body)
  `(%with-l4 with-packet (,data ,end ,udp ,ihl) +ip-proto-udp+ +udp-hdr-len+ XDP_PASS ,@body))

(defmacro with-tc-tcp ((data end tcp &key ihl) &body body)
  `(%with-l4 with-tc-packet (,data ,end ,tcp ,ihl) +ip-proto-tcp+ +tcp-hdr-len+ TC_ACT_OK ,@body))

(defmacro with-tc-udp ((data end udp &key ihl) &body body)
  `(%with-l4 with-tc-packet (,data ,end ,udp ,ihl) +ip-proto-udp+ +udp-hdr-len+ TC_ACT_OK ,@body))

;; Expressions: the header's address, or 0.
(defmacro parse-eth (data end)
  (let ((start (gensym "data")))
    `(let ((,start ,data))
       (if (> (+ ,start +eth-hdr-len+) ,end) 0 ,start))))

(defmacro parse-ipv4 (data end)
  (let ((start (gensym "data")))
    `(let ((,start ,data))
       (if (or (> (+ ,start (+ +eth-hdr-len+ +ipv4-hdr-len+)) ,end)
               (/= (eth-type ,start) +ethertype-ipv4+))
           0
           (+ ,start +eth-hdr-len+)))))

(defmacro %parse-l4 (data end proto len)
  (let ((start (gensym "data")))
    `(let ((,start ,data))
       (if (or (> (+ ,start (+ +eth-hdr-len+ +ipv4-hdr-len+ ,len)) ,end)
               (/= (eth-type ,start) +ethertype-ipv4+)
               (/= (ipv4-protocol (+ ,start +eth-hdr-len+)) ,proto))
           0
           (+ ,start (+ +eth-hdr-len+ +ipv4-hdr-len+))))))

(defmacro parse-tcp (data end)
  `(%parse-l4 ,data ,end +ip-proto-tcp+ +tcp-hdr-len+))

(defmacro parse-udp (data end)
  `(%parse-l4 ,data ,end +ip-proto-udp+ +udp-hdr-len+))
