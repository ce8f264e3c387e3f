"""Kernel functions that mean something special as the target of a program: names alone.

Names of LSM hooks are without bpf_lsm_. Source: the sets in kernel/bpf/bpf_lsm.c and kernel/trace/bpf_trace.c of 6.12
and 7.2. The machine with 6.18.44 attaches no LSM program, so that where the two differ the stricter answer is taken.
"""

from __future__ import annotations

from typing import Final

NOT_ALLOWED: Final = "helper call is not allowed in probe"
"""What the verifier says to a helper that the program's target may not call, after it looked at the licence."""

SLEEPABLE_LSM_HOOKS: Final = frozenset(
    [
        "bpf",
        "bpf_map",
        "bpf_map_create",
        "bpf_map_free",
        "bpf_prog",
        "bpf_prog_load",
        "bpf_token_capable",
        "bpf_token_cmd",
        "bpf_token_create",
        "bpf_token_free",
        "bprm_check_security",
        "bprm_committed_creds",
        "bprm_committing_creds",
        "bprm_creds_for_exec",
        "bprm_creds_from_file",
        "capget",
        "capset",
        "cred_prepare",
        "file_ioctl",
        "file_lock",
        "file_open",
        "file_post_open",
        "file_receive",
        "inode_create",
        "inode_free_security",
        "inode_getattr",
        "inode_getxattr",
        "inode_mknod",
        "inode_need_killpriv",
        "inode_post_setxattr",
        "inode_readlink",
        "inode_rename",
        "inode_rmdir",
        "inode_setattr",
        "inode_setxattr",
        "inode_symlink",
        "inode_unlink",
        "kernel_module_request",
        "kernel_read_file",
        "kernfs_init_security",
        "mmap_file",
        "netlink_send",
        "path_chmod",
        "path_chown",
        "path_link",
        "path_mkdir",
        "path_notify",
        "path_rename",
        "path_rmdir",
        "path_symlink",
        "path_truncate",
        "path_unlink",
        "release_secctx",
        "sb_alloc_security",
        "sb_eat_lsm_opts",
        "sb_kern_mount",
        "sb_mount",
        "sb_remount",
        "sb_set_mnt_opts",
        "sb_show_options",
        "sb_statfs",
        "sb_umount",
        "settime",
        "socket_accept",
        "socket_bind",
        "socket_connect",
        "socket_create",
        "socket_getpeername",
        "socket_getpeersec_dgram",
        "socket_getsockname",
        "socket_getsockopt",
        "socket_listen",
        "socket_post_create",
        "socket_recvmsg",
        "socket_sendmsg",
        "socket_shutdown",
        "socket_socketpair",
        "syslog",
        "task_alloc",
        "task_prctl",
        "task_setscheduler",
        "userns_create",
    ]
)
"""Hooks where an LSM program may sleep."""

DISABLED_LSM_HOOKS: Final = frozenset(
    [
        "audit_rule_match",
        "file_alloc_security",
        "getprocattr",
        "getselfattr",
        "inode_copy_up_xattr",
        "inode_getsecurity",
        "inode_listsecurity",
        "inode_need_killpriv",
        "ismaclabel",
        "key_getsecurity",
        "setprocattr",
        "vm_enough_memory",
        "xfrm_decode_session",
    ]
)
"""Hooks that no LSM program may be attached to."""

UNTRUSTED_LSM_HOOKS: Final = frozenset(
    [
        "bdev_alloc_security",
        "bdev_free_security",
        "bpf_map_free",
        "bpf_prog_free",
        "file_alloc_security",
        "file_free_security",
        "sk_alloc_security",
        "sk_free_security",
        "task_free",
    ]
)
"""Hooks whose arguments are not trusted: the objects are being made or taken apart."""

D_PATH_FUNCTIONS: Final = frozenset(
    [
        "security_file_permission",
        "security_inode_getattr",
        "security_file_open",
        "security_path_truncate",
        "vfs_truncate",
        "vfs_fallocate",
        "dentry_open",
        "vfs_getattr",
        "filp_close",
    ]
)
"""Functions where a tracing program may call bpf_d_path."""


def allows(allowed_hook: str, prog_type: str, attach_type: str, target: str) -> bool:
    """Whether a helper with this further test (`Proto.allowed_hook`) may be called at this target.

    True where the helper has no such test. Raises KeyError for a test that is not known: the call is to be refused as
    not modelled then.
    """
    if not allowed_hook:
        return True
    return _TESTS[allowed_hook](prog_type, attach_type, target.removeprefix("bpf_lsm_"))


def _d_path(prog_type: str, attach_type: str, target: str) -> bool:
    if prog_type == "tracing" and attach_type == "trace_iter":
        return True
    return target in (SLEEPABLE_LSM_HOOKS if prog_type == "lsm" else D_PATH_FUNCTIONS)


def _sleepable_hook(prog_type: str, attach_type: str, target: str) -> bool:
    return target in SLEEPABLE_LSM_HOOKS


def _socket_storage(prog_type: str, attach_type: str, target: str) -> bool:
    """Not where the program traces the very functions that the helper is made of."""
    if attach_type in ("trace_iter", "trace_raw_tp"):
        return True
    return attach_type in ("trace_fentry", "trace_fexit") and not target.startswith("bpf_sk_storage")


_TESTS: Final = {
    "bpf_d_path_allowed": _d_path,
    "bpf_ima_inode_hash_allowed": _sleepable_hook,
    "bpf_sk_storage_tracing_allowed": _socket_storage,
}
