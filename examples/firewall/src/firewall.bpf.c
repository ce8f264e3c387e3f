// A firewall in XDP: networks that are blocked, TCP ports that are open, and a count of what was done.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/tcp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct prefix {
	__u32 length;
	__be32 address;
};

struct stats {
	__u64 packets;
	__u64 bytes;
};

struct refusal {
	__be32 source;
	__u16 port;
	__u16 length;
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1024);
	__type(key, struct prefix);
	__type(value, __u8);
} blocked SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u16);
	__type(value, __u8);
} open_ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 5);
	__type(key, __u32);
	__type(value, struct stats);
} done SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} refusals SEC(".maps");

// Only for its type: user space reads records of it.
const struct refusal *unused_refusal __attribute__((unused));

static __always_inline int count(struct xdp_md *ctx, __u32 action)
{
	struct stats *stats = bpf_map_lookup_elem(&done, &action);

	if (stats) {
		stats->packets++;
		stats->bytes += ctx->data_end - ctx->data;
	}
	return action;
}

SEC("xdp")
int firewall(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct iphdr *ip = data + sizeof(*eth);
	struct tcphdr *tcp = data + sizeof(*eth) + sizeof(*ip);
	struct prefix prefix = { .length = 32 };
	struct refusal *refusal;
	__u16 port;

	if ((void *)(ip + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP))
		return count(ctx, XDP_PASS);
	prefix.address = ip->saddr;
	if (bpf_map_lookup_elem(&blocked, &prefix))
		return count(ctx, XDP_DROP);
	if (ip->protocol != IPPROTO_TCP || ip->ihl != 5 || (void *)(tcp + 1) > end)
		return count(ctx, XDP_PASS);
	port = bpf_ntohs(tcp->dest);
	if (bpf_map_lookup_elem(&open_ports, &port))
		return count(ctx, XDP_PASS);
	refusal = bpf_ringbuf_reserve(&refusals, sizeof(*refusal), 0);
	if (refusal) {
		refusal->source = ip->saddr;
		refusal->port = port;
		refusal->length = end - data;
		bpf_ringbuf_submit(refusal, 0);
	}
	return count(ctx, XDP_DROP);
}

char _license[] SEC("license") = "GPL";
