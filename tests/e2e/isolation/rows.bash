# shellcheck shell=bash disable=SC2016
# SPDX-License-Identifier: MIT
#
# rows.bash - what a lease can leave behind: one row each. Sourced by
# tests/e2e/isolation.sh, which says how they are judged.
#
#   row NAME ACT LOOK [HOW]
#
# ACT and LOOK are run by the guest's shell. LOOK prints something: one thing in
# an untouched machine, always the same, and another after ACT. What it looks for
# is written [s]o, for the words of LOOK themselves are in the machine, too.
#
# HOW the lease ends:
#   returned  (default) ACT and LOOK have run, the lease is returned
#   dies      the client is told that its machine has died, of ACT or because ACT
#             left it unable to answer: at the latest after the time-out of 3 s and
#             the host's patience beyond it
#   killed    ACT goes on; the client is killed when it has written something
#   host      as returned, but it is looked for from outside: LOOK is a command of
#             the host

alive() { # PATTERN: a look for processes, which may be between two lives
	echo 'for i in 1 2 3 4 5 6 7 8; do grep -q '"'$1'"' /proc/[0-9]*/cmdline 2>/dev/null && echo alive && break; usleep 50000; done'
}

rows() {
	# Nine tenths of what is free. The pattern is made in the guest: it stands in no request.
	local dir fill='mount -o remount,size=100% /tmp; cd /tmp
		p=$(echo fgnva-cnggrea-fgnva-cnggrea | tr a-z n-za-m)
		yes "$p" | head -c 1048576 >one
		n=$(awk "/MemAvailable/ { print int(\$2 * 0.9 / 1024) - 1 }" /proc/meminfo)
		while [ $n -gt 0 ]; do cat one; n=$((n - 1)); done >fill'
	for dir in / /tmp /root /etc /dev/shm /dev /run /var/tmp /home; do
		row "a file in $dir" "echo stain >$dir/stain; mkdir $dir/.stain.d" "ls -A $dir"
	done
	row "a changed /bin/busybox" \
		'cp /bin/busybox /bin/new; echo stain >>/bin/new; mv /bin/new /bin/busybox' \
		'md5sum /bin/busybox'
	row "/root/.profile" 'echo "echo stain" >/root/.profile' 'HOME=/root sh -lc true'
	row "/etc/passwd" 'echo stain::0:0::/:/bin/sh >>/etc/passwd' 'id stain 2>/dev/null; md5sum </etc/passwd'
	row "a setsid daemon" \
		'setsid sh -c "while :; do sleep 1; done" stain-daemon </dev/null >/dev/null 2>&1 &' \
		"$(alive '[s]tain-daemon')"
	row "a daemon that ignores SIGTERM and re-forks" \
		'printf "#!/bin/sh\ntrap \"\" TERM HUP INT\nusleep 50000\nsetsid \"\$0\" &\n" >/tmp/stain-phoenix
		chmod +x /tmp/stain-phoenix
		/tmp/stain-phoenix </dev/null >/dev/null 2>&1
		for p in $(grep -l "[s]tain-phoenix" /proc/[0-9]*/cmdline); do kill -TERM $(basename $(dirname $p)); done' \
		"$(alive '[s]tain-phoenix')"
	row "a full tmpfs" \
		'dd if=/dev/zero of=/tmp/fill bs=64k 2>/dev/null' \
		'df /tmp | tail -n 1; echo x >/tmp/probe && cat /tmp/probe; rm -f /tmp/probe'
	row "90 % of memory filled with a pattern" "$fill" 'pattern_in_pool stain-pattern-stain-pattern' host
	row "90 % of memory filled, searched from inside" "$fill" 'stain memory'
	row "mounts" \
		'mkdir -p /mnt/a /mnt/b; mount -t tmpfs stain /mnt/a; mount --bind /etc /mnt/b; mount -t tmpfs stain /etc
		mount -o remount,ro /run' \
		'cat /proc/mounts'
	row "an unmounted /tmp" 'umount /tmp' 'grep /tmp /proc/mounts'
	row "sysctls" \
		'echo 1 >/proc/sys/vm/overcommit_memory; echo 7 >/proc/sys/vm/swappiness
		echo 0 >/proc/sys/kernel/randomize_va_space
		echo 100 >/proc/sys/kernel/panic; echo 1234 >/proc/sys/fs/file-max' \
		'cd /proc/sys; cat vm/overcommit_memory vm/swappiness kernel/randomize_va_space kernel/panic fs/file-max'
	row "the host name" 'hostname stain' 'hostname; uname -n'
	row "the clock set to 1990" 'date -s "1990-01-01 00:00:00" >/dev/null' \
		'[ "$(date +%s)" -gt 1700000000 ] && echo "after 2023" || date'
	row "another machine id" 'rm -f /etc/machine-id; ln -s /stain /etc/machine-id' \
		'[ -L /etc/machine-id ] && echo link; wc -c </etc/machine-id'
	row "a loopback without addresses" \
		'ip addr flush dev lo; ip link set lo mtu 1234' 'ip addr show lo'
	row "the agent's limits" 'stain limit' 'cat /proc/1/limits'
	row "the agent's cgroup" 'mkdir /sys/fs/cgroup/stain; echo 5 >/sys/fs/cgroup/stain/pids.max' \
		'cd /sys/fs/cgroup && ls -d [s]tain 2>/dev/null; cat /proc/self/cgroup | wc -l'
	row "an open terminal" \
		'setsid sh -c "exec sleep 1000 9<>/dev/ptmx" </dev/null >/dev/null 2>&1 & usleep 300000' \
		'ls /dev/pts'
	row "a link in /dev/shm, a setting of System V" 'ln -s /stain /dev/shm/link; echo 1 >/proc/sys/kernel/shm_rmid_forced' \
		'cat /proc/sys/kernel/shm_rmid_forced; ls -A /dev/shm'
	row "the kernel's log" 'echo stain-message >/dev/kmsg' 'dmesg | grep -c "[s]tain-message"'
	row "the agent's binary replaced" 'cp /bin/busybox /new; mv /new /init' \
		'md5sum </init; readlink /proc/1/exe'
	row "the agent's memory patched" \
		'base=$(sed -n "1s/-.*//p" /proc/1/maps)
		printf STAIN | dd of=/proc/1/mem bs=1 seek=$((0x$base + 9)) conv=notrunc 2>/dev/null' \
		'base=$(sed -n "1s/-.*//p" /proc/1/maps)
		dd if=/proc/1/mem bs=1 skip=$((0x$base)) count=16 2>/dev/null | hexdump -C'
	row "SIGKILL for the agent" 'echo 1 >/stain; kill -9 1; kill -STOP 1' 'ls /stain 2>/dev/null'

	row "half a frame on the channel" 'stain frame; sleep 1000' 'echo alive' dies
	row "the agent killed" \
		'map=$(grep -m 1 r-xp /proc/1/maps | cut -d" " -f1); from=$((0x${map%-*})) to=$((0x${map#*-}))
		dd if=/dev/zero of=/proc/1/mem bs=4096 seek=$((from / 4096)) count=$(((to - from) / 4096)) conv=notrunc 2>/dev/null
		sleep 1000' 'echo alive' dies
	row "the kernel panicked" 'echo c >/proc/sysrq-trigger; sleep 1000' 'echo alive' dies
	row "the machine powered off" 'poweroff -f; sleep 1000' 'echo alive' dies
	# A kernel that has panicked and may not reboot spins on its processor for ever.
	row "the kernel stuck in a loop" \
		'echo 0 >/proc/sys/kernel/panic; echo c >/proc/sysrq-trigger; sleep 1000' 'cat /proc/sys/kernel/panic' dies
	# Interrupts off, for ever; in a loop that does not even halt: tests/kvm/test_template.c.
	row "the processor halted, interrupts off" 'halt -f; sleep 1000' 'echo alive' dies
	row "all memory taken" \
		'mount -o remount,size=100% /tmp; echo before; dd if=/dev/zero of=/tmp/fill bs=64k 2>/dev/null; sleep 1000' \
		'df /tmp | tail -n 1' killed
	row "a gigabyte still streaming" 'head -c 1073741824 /dev/zero' 'echo quiet' killed
	row "a gigabyte still coming in" 'echo up; cat >/tmp/in' 'ls -A /tmp' killed
}
