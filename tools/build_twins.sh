#!/bin/sh
# Compiles the C twins of the fixture programs: fixtures/twins/*.c -> *.o, kept in the repository so that tests and the
# benchmark need no clang. Needs clang-19 and libbpf's headers (Debian: clang-19 libbpf-dev linux-libc-dev).
set -eu
cd "$(dirname "$0")/../fixtures/twins"
CLANG=${CLANG:-clang-19}
for source in *.c; do
	"$CLANG" -O2 -g -mcpu=v3 -target bpf -Wall -Werror \
		-I"/usr/include/$(uname -m)-linux-gnu" -fdebug-prefix-map="$PWD=." -c "$source" -o "${source%.c}.o"
done
