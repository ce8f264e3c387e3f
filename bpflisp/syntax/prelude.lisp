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

(defmacro %parse-l4 (data end ihl proto len)
  (let ((start (gensym "data")) (limit (gensym "end")) (l4 (gensym "l4")) (ip (gensym "ip")))
    `(let* ((,start ,data) (,limit ,end) (,ip (+ ,start +eth-hdr-len+)))
       (if (or (> (+ ,start (+ +eth-hdr-len+ +ipv4-hdr-len+ ,len)) ,limit)
               (/= (eth-type ,start) +ethertype-ipv4+)
               (/= (ipv4-protocol ,ip) ,proto))
           0
           ,(if ihl
                `(let ((,l4 (+ ,ip (<< (logand (ipv4-ver-ihl ,ip) 15) 2))))
                   (if (> (+ ,l4 ,len) ,limit) 0 ,l4))
                `(+ ,ip +ipv4-hdr-len+))))))

(defmacro parse-tcp (data end &key ihl)
  `(%parse-l4 ,data ,end ,ihl +ip-proto-tcp+ +tcp-hdr-len+))

(defmacro parse-udp (data end &key ihl)
  `(%parse-l4 ,data ,end ,ihl +ip-proto-udp+ +udp-hdr-len+))

;;; Further protocols, in the way of the book's: for XDP `with-...`, for TC `with-tc-...`; expressions for both.

(defmacro %when-type ((data header type) &body body)
  `(when (= (eth-type ,data) ,type)
     (let ((,header (+ ,data +eth-hdr-len+)))
       ,@body)))

(defmacro with-ipv6 ((data end ip) &body body)
  `(with-packet (,data ,end :min-len (+ +eth-hdr-len+ +ipv6-hdr-len+))
     (%when-type (,data ,ip +ethertype-ipv6+) ,@body)))

(defmacro with-tc-ipv6 ((data end ip) &body body)
  `(with-tc-packet (,data ,end :min-len (+ +eth-hdr-len+ +ipv6-hdr-len+))
     (%when-type (,data ,ip +ethertype-ipv6+) ,@body)))

(defmacro with-arp ((data end arp) &body body)
  `(with-packet (,data ,end :min-len (+ +eth-hdr-len+ +arp-hdr-len+))
     (%when-type (,data ,arp +ethertype-arp+) ,@body)))

(defmacro with-tc-arp ((data end arp) &body body)
  `(with-tc-packet (,data ,end :min-len (+ +eth-hdr-len+ +arp-hdr-len+))
     (%when-type (,data ,arp +ethertype-arp+) ,@body)))

(defmacro with-icmp ((data end icmp &key ihl) &body body)
  `(%with-l4 with-packet (,data ,end ,icmp ,ihl) +ip-proto-icmp+ +icmp-hdr-len+ XDP_PASS ,@body))

(defmacro with-tc-icmp ((data end icmp &key ihl) &body body)
  `(%with-l4 with-tc-packet (,data ,end ,icmp ,ihl) +ip-proto-icmp+ +icmp-hdr-len+ TC_ACT_OK ,@body))

;; A transport header directly behind the fixed 40 bytes of IPv6: extension headers are not walked.
(defmacro %with-l4-ipv6 (packet (data end l4) proto len &body body)
  (let ((ip (gensym "ip")))
    `(,packet (,data ,end :min-len (+ +eth-hdr-len+ +ipv6-hdr-len+ ,len))
       (%when-type (,data ,ip +ethertype-ipv6+)
         (when (= (ipv6-nexthdr ,ip) ,proto)
           (let ((,l4 (+ ,ip +ipv6-hdr-len+)))
             ,@body))))))

(defmacro with-icmpv6 ((data end icmp) &body body)
  `(%with-l4-ipv6 with-packet (,data ,end ,icmp) +ip-proto-ipv6-icmp+ +icmpv6-hdr-len+ ,@body))
(defmacro with-tc-icmpv6 ((data end icmp) &body body)
  `(%with-l4-ipv6 with-tc-packet (,data ,end ,icmp) +ip-proto-ipv6-icmp+ +icmpv6-hdr-len+ ,@body))
(defmacro with-tcp6 ((data end tcp) &body body)
  `(%with-l4-ipv6 with-packet (,data ,end ,tcp) +ip-proto-tcp+ +tcp-hdr-len+ ,@body))
(defmacro with-tc-tcp6 ((data end tcp) &body body)
  `(%with-l4-ipv6 with-tc-packet (,data ,end ,tcp) +ip-proto-tcp+ +tcp-hdr-len+ ,@body))
(defmacro with-udp6 ((data end udp) &body body)
  `(%with-l4-ipv6 with-packet (,data ,end ,udp) +ip-proto-udp+ +udp-hdr-len+ ,@body))
(defmacro with-tc-udp6 ((data end udp) &body body)
  `(%with-l4-ipv6 with-tc-packet (,data ,end ,udp) +ip-proto-udp+ +udp-hdr-len+ ,@body))

;; The same as expressions.
(defmacro %parse-l4-ipv6 (data end proto len)
  (let ((start (gensym "data")))
    `(let ((,start ,data))
       (if (or (> (+ ,start (+ +eth-hdr-len+ +ipv6-hdr-len+ ,len)) ,end)
               (/= (eth-type ,start) +ethertype-ipv6+)
               (/= (ipv6-nexthdr (+ ,start +eth-hdr-len+)) ,proto))
           0
           (+ ,start (+ +eth-hdr-len+ +ipv6-hdr-len+))))))

(defmacro parse-tcp6 (data end)
  `(%parse-l4-ipv6 ,data ,end +ip-proto-tcp+ +tcp-hdr-len+))
(defmacro parse-udp6 (data end)
  `(%parse-l4-ipv6 ,data ,end +ip-proto-udp+ +udp-hdr-len+))
(defmacro parse-icmpv6 (data end)
  `(%parse-l4-ipv6 ,data ,end +ip-proto-ipv6-icmp+ +icmpv6-hdr-len+))

;; The body runs with `l3` behind one or two VLAN tags, or none, and `type` the type of what is there. Bytes from `l3`
;; on are not tested yet.
(defmacro %with-vlan (packet (data end l3 type) pass &body body)
  `(,packet (,data ,end :min-len +eth-hdr-len+)
     (let ((,l3 (+ ,data +eth-hdr-len+))
           (,type (eth-type ,data)))
       ,@(loop repeat 2
               collect `(when (or (= ,type +ethertype-vlan+) (= ,type +ethertype-qinq+))
                          (when (> (+ ,l3 +vlan-hdr-len+) ,end)
                            (return ,pass))
                          (setf ,type (vlan-type ,l3)
                                ,l3 (+ ,l3 +vlan-hdr-len+))))
       ,@body)))

(defmacro with-vlan ((data end l3 type) &body body)
  `(%with-vlan with-packet (,data ,end ,l3 ,type) XDP_PASS ,@body))
(defmacro with-tc-vlan ((data end l3 type) &body body)
  `(%with-vlan with-tc-packet (,data ,end ,l3 ,type) TC_ACT_OK ,@body))

(defmacro %parse-type (data end type len)
  (let ((start (gensym "data")))
    `(let ((,start ,data))
       (if (or (> (+ ,start (+ +eth-hdr-len+ ,len)) ,end)
               (/= (eth-type ,start) ,type))
           0
           (+ ,start +eth-hdr-len+)))))

(defmacro parse-ipv6 (data end)
  `(%parse-type ,data ,end +ethertype-ipv6+ +ipv6-hdr-len+))
(defmacro parse-arp (data end)
  `(%parse-type ,data ,end +ethertype-arp+ +arp-hdr-len+))
(defmacro parse-icmp (data end &key ihl)
  `(%parse-l4 ,data ,end ,ihl +ip-proto-icmp+ +icmp-hdr-len+))
;; What is behind the tags, or 0; its type is in the two bytes before it.
(defmacro parse-vlan (data end)
  (let ((start (gensym "data")) (l3 (gensym "l3")) (limit (gensym "end")))
    `(let* ((,start ,data) (,limit ,end) (,l3 (+ ,start +eth-hdr-len+)))
       (if (> ,l3 ,limit)
           0
           ,(labels ((skip (left type)
                       (if (= left 0)
                           l3
                           `(if (or (= ,type +ethertype-vlan+) (= ,type +ethertype-qinq+))
                                (progn
                                  (setf ,l3 (+ ,l3 +vlan-hdr-len+))
                                  (if (> ,l3 ,limit)
                                      0
                                      ,(skip (- left 1) `(vlan-type (- ,l3 +vlan-hdr-len+)))))
                                ,l3))))
              (skip 2 `(eth-type ,start)))))))

;;; Tracing.

(defmacro kernel-load (type pointer &optional (offset 0))
  (let ((buffer (gensym "buffer")))
    `(let ((,buffer (struct-alloc (sizeof ,type))))
       (probe-read-kernel ,buffer (sizeof ,type) (+ ,pointer ,offset))
       (load ,type ,buffer))))

;; At most `max` times, and `count` times at most: the pointer that user memory holds at base + 8 * index, if not null.
(defmacro do-user-ptrs ((var base count max &key (index (gensym "index"))) &body body)
  (let ((buffer (gensym "buffer")) (from (gensym "from")) (limit (gensym "limit")))
    `(let ((,buffer (struct-alloc 8)) (,from ,base) (,limit ,count))
       (dotimes (,index ,max)
         (when (> ,limit ,index)
           (probe-read-user ,buffer 8 (+ ,from (* ,index 8)))
           (let ((,var (load u64 ,buffer)))
             (when ,var ,@body)))))))

;; The same with elements of a scalar type (the variable is the value) or a struct (it is the address of a copy).
(defmacro do-user-array ((var type base count max &key (index (gensym "index"))) &body body)
  (let ((buffer (gensym "buffer")) (from (gensym "from")) (limit (gensym "limit"))
        (scalar (member type '(u8 u16 u32 u64 i8 i16 i32 i64))))
    `(let ((,buffer ,(if scalar '(struct-alloc 8) (list (intern (format nil "MAKE-~a" type)))))
           (,from ,base) (,limit ,count))
       (dotimes (,index ,max)
         (when (> ,limit ,index)
           (probe-read-user ,buffer (sizeof ,type) (+ ,from (* ,index (sizeof ,type))))
           (let ((,var ,(if scalar `(load ,type ,buffer) buffer)))
             ,@body))))))

(defmacro fill-process-info (event &key pid-field uid-field timestamp-field comm-field (comm-size 16))
  (let ((record (gensym "event")))
    `(let ((,record ,event))
       ,@(when pid-field `((setf (,pid-field ,record) (cast u32 (>> (get-current-pid-tgid) 32)))))
       ,@(when uid-field `((setf (,uid-field ,record) (cast u32 (get-current-uid-gid)))))
       ,@(when timestamp-field `((setf (,timestamp-field ,record) (ktime-get-ns))))
       ,@(when comm-field `((get-current-comm (,comm-field ,record) ,comm-size)))
       0)))
