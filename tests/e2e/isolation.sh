#!/bin/bash
# SPDX-License-Identifier: MIT
#
# isolation.sh - end-to-end test of the promise that a borrower gets a machine
# nobody has touched. The pool has room for one machine. Lease A does something to
# it, lease B looks: row by row of tests/e2e/isolation/rows.bash. A row proves
# itself, for its look must see what was done while lease A lasts. B compares with
# a machine that nobody has used: the row's look, and all that is common to rows.
# Then lease after lease must find the same, and so many fresh machines must have
# nothing random in common and the right time.
#
# Usage: tests/e2e/isolation.sh [ROW...]   (prints TAP; ROW: patterns of row names)
#        tests/e2e/isolation.sh --build-tools FOLDER   (its programs, nothing else)
#
# $VMPOOL_E2E_RECYCLE: reset (default) or discard
# $VMPOOL_E2E_AGAIN: how many leases in a row (60)
# $VMPOOL_E2E_FRESH: how many fresh machines to compare (100)
# $VMPOOL_E2E_CLOCK_MS: how far their clocks may be off (50)
# $VMPOOL_E2E_TOOLS: folder with what --build-tools makes (default: makes it)

set -uo pipefail
# shellcheck source=tests/lib/e2e.sh
. "$(dirname "$0")/../lib/e2e.sh"
HERE=$ROOT/tests/e2e/isolation
# shellcheck source=tests/e2e/isolation/rows.bash
. "$HERE/rows.bash"

AGAIN=${VMPOOL_E2E_AGAIN:-60}
FRESH=${VMPOOL_E2E_FRESH:-100}
SPAWNED=40 # of FRESH, by a pool that resets none
CLOCK_MS=${VMPOOL_E2E_CLOCK_MS:-50}
ONLY=("$@")

# --- what the guests need -----------------------------------------------------------

# The image is the product's and stain in a second archive, which the kernel unpacks as well.
build_tools() { # FOLDER
	local program
	for program in leave borrow; do
		"${CC:-cc}" -std=gnu11 -D_GNU_SOURCE -I"$ROOT" -O2 -pthread -o "$1/$program" "$HERE/$program.c" \
			"$(dirname "$BIN")/lib/libvmpool.a" || return
	done
	"${CC:-cc}" -std=gnu11 -D_GNU_SOURCE -Os -static -nostdlib -ffreestanding -fno-stack-protector \
		-fno-asynchronous-unwind-tables -fno-pie -no-pie -s -o "$1/stain" "$HERE/stain.c" || return
	# shellcheck source=scripts/cpio.sh
	. "$ROOT/scripts/cpio.sh"
	{ cat "${VMPOOL_GUEST:-$ROOT/build/guest/current}/initramfs" && cpio_file bin/stain 0755 "$1/stain" && cpio_end; } >"$1/image"
}

# guest SCRIPT [OPTION...]: run it in a fresh VM. The script comes in the
# environment: no process has it on its command line.
# shellcheck disable=SC2016
guest() {
	local script=$1
	shift
	timeout --kill-after=5 $((300 * SLOW)) "$BIN/vmpool" -p "$POOL" exec --wait $((180 * SLOW)) \
		-e "SCRIPT=$script" "$@" -- sh -c 'eval "$SCRIPT"; exit 0' >"$TMP/out" 2>"$TMP/err"
	STATUS=$?
	printf '%d: %s\n' "$STATUS" "$script" | head -c 300 >"$TMP/status"
}

# What any row might have changed by the way. Ids are new in each machine, and the
# order and number of the kernel's own threads is its affair.
# shellcheck disable=SC2016
COMMON='
echo "-- files"
find / /dev /run /tmp /dev/shm /root -xdev | sort -u | grep -v -e ^/proc/ -e ^/sys/ |
	xargs stat -c "%A %u %g %s %t %T %N"
echo "-- contents"
find / -xdev -type f ! -name machine-id ! -path "/proc/*" ! -path "/sys/*" | sort | xargs md5sum
echo "-- mounts"; cat /proc/mounts
echo "-- kernel"; hostname; cat /proc/cmdline; id; pwd; umask; ulimit -a
cd /proc/sys/kernel && cat ctrl-alt-del domainname hostname panic pid_max printk randomize_va_space threads-max
cd /proc/sys/vm && cat overcommit_memory overcommit_ratio swappiness dirty_ratio min_free_kbytes; cd /
echo "-- agent"; cat /proc/1/limits /proc/1/cgroup; grep /init /proc/1/maps; md5sum </proc/1/exe; ls /proc/1/fd | wc -l
echo "-- processes"; for p in /proc/[0-9]*; do
	[ "${p#/proc/}" = $$ ] || [ ! -s $p/cmdline ] || tr "\0" " " <$p/cmdline; done 2>/dev/null | sed "s/tr $//"
echo "-- terminals"; ls /dev/pts; echo "-- network"; ip addr; ip route
echo "-- cgroups"; ls -d /sys/fs/cgroup/*/ 2>/dev/null | wc -l
'

# pattern_in_pool TEXT: search the memory of all processes of the pool's machines.
pattern_in_pool() {
	local pid range
	for pid in $(pool_processes); do
		while read -r range; do
			grep -qaF -- "$1" < <(dd if="/proc/$pid/mem" bs=64k iflag=skip_bytes,count_bytes \
				skip=$((0x${range%-*})) count=$((0x${range#*-} - 0x${range%-*})) 2>/dev/null) &&
				echo "found in process $pid" && return
		done < <(awk '$2 ~ /^r/ && $6 != "[vvar]" && $6 != "[vsyscall]" { print $1 }' "/proc/$pid/maps" 2>/dev/null)
	done
	echo "not found"
}

# --- rows ---------------------------------------------------------------------------

wanted() {
	local pattern
	[ ${#ONLY[@]} -eq 0 ] && return 0
	for pattern in "${ONLY[@]}"; do
		# shellcheck disable=SC2254
		case $1 in $pattern) return 0 ;; esac
	done
	return 1
}

declare -a NAMES=() ACTS=() LOOKS=() HOWS=()
row() {
	wanted "$1" || return 0
	NAMES+=("$1") ACTS+=("$2") LOOKS+=("$3") HOWS+=("${4:-returned}")
}

# before WORD, after WORD: the part of the last guest's output.
before() { awk -v mark="== $1" '$0 == mark { exit } { print }' "$TMP/out"; }
after() { awk -v mark="== $1" 'on { print } $0 == mark { on = 1 }' "$TMP/out"; }

# look_at ROW: its LOOK, in a machine of its own, followed by what is common.
look_at() {
	local script=${LOOKS[$1]}
	[ "${HOWS[$1]}" != host ] || script=:
	guest "( $script ) 2>&1; echo '== common'; ( $COMMON ) 2>&1"
	[ $STATUS -eq 0 ] || return 1
	before common >"$TMP/look"
	[ "${HOWS[$1]}" != host ] || eval "${LOOKS[$1]}" >"$TMP/look"
	after common >"$TMP/common"
}

# The untouched machine: all looks in one lease, which change nothing.
untouched() {
	local i script=''
	for i in "${!NAMES[@]}"; do
		[ "${HOWS[$i]}" = host ] || script+="echo '== $i'; ( ${LOOKS[$i]} ) 2>&1"$'\n'
	done
	guest "$script echo '== common'; ( $COMMON ) 2>&1"
	[ $STATUS -eq 0 ] || return 1
	awk -v dir="$TMP" '/^== / { file = dir "/want." $2; printf "" >file; next } { print >file }' "$TMP/out"
	for i in "${!NAMES[@]}"; do
		[ "${HOWS[$i]}" != host ] || eval "${LOOKS[$i]}" >"$TMP/want.$i"
	done
	[ -s "$TMP/want.common" ]
}

# act ROW: lease A. 0: the row's look has seen what was done, or the machine died
# of it, or the client was killed in the midst of it.
act() {
	local pid
	case ${HOWS[$1]} in
	returned)
		guest "( ${ACTS[$1]} ) 2>&1; echo '== look'; ( ${LOOKS[$1]} ) 2>&1"
		after look >"$TMP/look"
		[ $STATUS -eq 0 ] && grep -q '^== look$' "$TMP/out" && ! cmp -s "$TMP/look" "$TMP/want.$1"
		;;
	host)
		mkfifo "$TMP/hold"
		guest_held "${ACTS[$1]}"
		;;
	dies)
		guest "${ACTS[$1]}" -t 3
		[ $STATUS -eq 125 ] && grep -q died "$TMP/err"
		;;
	killed)
		"$BIN/vmpool" -p "$POOL" exec -i --wait $((180 * SLOW)) -- sh -c "${ACTS[$1]}" \
			< <(exec head -c 100000000 /dev/zero) >"$TMP/out" 2>"$TMP/err" &
		pid=$!
		until_true 240 test -s "$TMP/out" && kill -KILL $pid
		STATUS=$?
		wait $pid 2>/dev/null
		return $STATUS
		;;
	esac
}

# A lease that is held until it has been looked at from outside.
# shellcheck disable=SC2016
guest_held() {
	local pid
	"$BIN/vmpool" -p "$POOL" exec -i --wait $((180 * SLOW)) -e "SCRIPT=$1" -- \
		sh -c 'eval "$SCRIPT"; echo ready; cat' <"$TMP/hold" >"$TMP/out" 2>"$TMP/err" &
	pid=$!
	exec 8>"$TMP/hold"
	until_true 300 grep -q ready "$TMP/out"
	pattern_in_pool stain-pattern-stain-pattern >"$TMP/look"
	exec 8>&-
	wait $pid
	STATUS=$?
	rm "$TMP/hold"
	[ $STATUS -eq 0 ] && grep -q '^found' "$TMP/look"
}

same() { # WANT GOT
	cmp -s "$1" "$2" && return
	diff "$1" "$2" | head -n 20 >"$TMP/out"
	return 1
}

# As result, with the beginning of what the guest said, in whole lines.
verdict() {
	head -n 20 "$TMP/out" | cut -c 1-90 >"$TMP/short"
	mv "$TMP/short" "$TMP/out"
	result "$@"
}

judge() { # ROW
	act "$1"
	verdict $? "${NAMES[$1]}: it happens" || return
	look_at "$1" && same "$TMP/want.$1" "$TMP/look" && same "$TMP/want.common" "$TMP/common"
	verdict $? "${NAMES[$1]}: the next lease finds nothing of it"
}

# --- a client that leaves every stream open --------------------------------------------

judge_streams() {
	local n=0 i
	wanted "every stream left open" || return 0
	{ timeout 300 "$TOOLS/leave" "$POOL" >"$TMP/out" 2>"$TMP/err"; } 2>/dev/null
	n=$(cat "$TMP/out")
	[ "${n:-0}" -eq 128 ]
	result $? "every stream left open: 128 of 1000 were, then the client was killed"
	guest "( $COMMON ) 2>&1"
	[ $STATUS -eq 0 ] && cp "$TMP/out" "$TMP/common" && same "$TMP/want.common" "$TMP/common"
	verdict $? "every stream left open: the next lease finds nothing of it"
}

# --- what no two machines have in common ------------------------------------------------

# An hour ago, as far as its clock knows: the template's is as far behind as if it
# had been made then.
# shellcheck disable=SC2016
AGE='date -s "@$(($(date +%s) - 3600))" >/dev/null; echo $(cat /proc/uptime) $(date +%s) >/tmp/aged'

# fresh COUNT: a line per machine, see borrow.c: what stain says first; then the time,
# twice, since only the second command of a kind takes less than what is to be measured.
fresh() {
	timeout $((300 * SLOW)) "$TOOLS/borrow" "$POOL" "$1" stain fresh -- stain clock -- stain clock \
		>>"$TMP/fresh" 2>"$TMP/err"
	cp "$TMP/fresh" "$TMP/out"
}

distinct() { # FIELD PATTERN: so many different values, of that form
	awk -v f="$1" '{ print $f }' "$TMP/fresh" | grep -Ex -- "$2" | sort -u | wc -l | grep -qx "$FRESH"
}

# good COUNT EXPRESSION: it is true of so many lines, all there are.
good() { awk -v n="$1" -v off="$CLOCK_MS" "{ all++ } $2 { good++ } END { exit good != n || all != n }" "$TMP/fresh"; }

judge_ids() {
	local hex='[0-9a-f]'
	distinct 3 "$hex{8}-$hex{4}-4$hex{3}-[89ab]$hex{3}-$hex{12}"
	result $? "$FRESH machines, $FRESH boot ids"
	distinct 4 "$hex{12}4$hex{3}[89ab]$hex{15}"
	result $? "$FRESH machines, $FRESH machine ids"
	distinct 5 "$hex{64}"
	result $? "$FRESH machines, the first 32 bytes of /dev/urandom all differ"
	distinct 6 "$hex{64}"
	result $? "$FRESH machines, the first 32 bytes of getrandom() all differ"
	distinct 7 "$hex{8}-.*"
	result $? "$FRESH machines, their kernels' random UUIDs all differ"
}

# Fields, for awk: the last three are the last command's.
CLOCK='$NF >= $(NF - 2) - off * 1e6 && $NF <= $(NF - 1) + off * 1e6'
judge_clocks() { # COUNT WHAT
	good "$1" "$CLOCK"
	result $? "$1 machines $2, their clocks are right within $CLOCK_MS ms"
}

# Those of the pool that has served all of the above, then each in a process of its own.
judge_fresh() {
	local worn=$((FRESH - SPAWNED))
	fresh $worn
	judge_clocks $worn "of the template"
	pool_stop
	mv "$TMP/fresh" "$TMP/worn"
	pool_start --image "$TOOLS/image" --min-idle 2 --max-idle 2 --max-total 4 --recycle discard --warmup "$AGE"
	fresh "$SPAWNED"
	good "$SPAWNED" '$11 < $1 / 1e9 - 3590'
	result $? "the other template's clock is an hour behind"
	judge_clocks "$SPAWNED" "of a template that is an hour old"
	good "$SPAWNED" '$8 / 1e9 >= $9'
	result $? "their uptime goes on from the template's"
	[ "$(stat_of spawn_count)" -ge "$SPAWNED" ]
	result $? "each was made for its lease"
	cat "$TMP/worn" >>"$TMP/fresh"
	judge_ids
}

# --- lease after lease -------------------------------------------------------------------

# What each lease sees, and then leaves behind; the shell does most of it by itself.
# shellcheck disable=SC2016
AGAIN_ACT='stain same
echo $$ >/tmp/left; echo x >>/etc/passwd; mkdir /left; rm /bin/vi; hostname left; cd /proc/sys
echo 1 >vm/swappiness; echo 100 >kernel/panic; mount -t tmpfs left /mnt; ulimit -n 100
setsid sleep 1000 </dev/null >/dev/null 2>&1 &'

# KiB that the slot's process and the supervisor have for themselves, once the last
# lease's reset is done.
weigh() { # FILE
	until_true 60 stat_is idle_count 1 || return 1
	{ pids_of idle && supervisor_pid; } | while read -r pid; do
		awk -v pid="$pid" '$1 == "Anonymous:" { print pid, $2 }' "/proc/$pid/smaps_rollup"
	done >"$1"
}

no_growth() { # EARLY LATE: no process that is in both has 64 KiB more.
	awk 'NR == FNR { was[$1] = $2; next } $1 in was && $2 > was[$1] + 64 { print $0, "was", was[$1]; bad = 1 }
		END { exit bad }' "$1" "$2" >"$TMP/out"
}

again() { # COUNT
	timeout $((300 * SLOW)) "$TOOLS/borrow" "$POOL" "$1" sh -c "$AGAIN_ACT" >>"$TMP/again" 2>"$TMP/err"
}

judge_again() {
	local early=$((AGAIN / 3))
	wanted again || return 0
	# By then a VM's process knows which pages every life writes (kvm/dirty.c).
	again $early && weigh "$TMP/early" && again $((AGAIN - early)) && weigh "$TMP/late"
	result $? "$AGAIN leases in a row"
	awk -v n="$AGAIN" '{ same[$4 " " $5 " " $6 " " $7]++ } END { for (s in same) { print same[s], s; if (same[s] == n) good++ }
		exit good != 1 }' "$TMP/again" >"$TMP/out"
	result $? "each finds the files, processes, mounts and settings that the first has found"
	[ "$(awk '{ print $3 }' "$TMP/again" | sort -u | wc -l)" -eq "$AGAIN" ]
	result $? "each has its own boot id"
	no_growth "$TMP/early" "$TMP/late"
	result $? "no process has grown by them"
}

# --- all of it ---------------------------------------------------------------------------

if [ "${1:-}" = --build-tools ]; then
	build_tools "${2:?--build-tools needs a folder}"
	exit
fi
TOOLS=${VMPOOL_E2E_TOOLS:-$TMP}
[ -e "$ROOT/build/guest/current/initramfs" ] || [ -n "${VMPOOL_GUEST:-}" ] ||
	skip_all "the guest image is not built (make guest)"
if [ "$TOOLS" = "$TMP" ] && ! build_tools "$TMP" 2>"$TMP/err"; then
	result 1 "the test's programs compile"
	done_testing
	exit 1
fi
rows
pool_start --image "$TOOLS/image" --min-idle 1 --max-idle 1 --max-total 1 --recycle "${VMPOOL_E2E_RECYCLE:-reset}"
untouched
result $? "an untouched machine has been looked at" || { done_testing && exit 1; }
[ ${#NAMES[@]} -eq 0 ] || for i in "${!NAMES[@]}"; do judge "$i"; done
judge_streams
judge_again
! wanted fresh || judge_fresh
pool_stop
done_testing
