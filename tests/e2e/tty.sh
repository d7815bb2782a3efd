#!/bin/bash
# SPDX-License-Identifier: MIT
#
# tty.sh - end-to-end test of vmpool shell and exec --tty in a real terminal (tmux's):
# keys, job control, full-screen programs, the window's size, and our own terminal, which
# is itself again afterwards however it ended.
#
# Usage: tests/e2e/tty.sh     (prints TAP)

set -uo pipefail
# shellcheck source=tests/lib/e2e.sh
. "$(dirname "$0")/../lib/e2e.sh"

command -v tmux >/dev/null || skip_all "tmux is not installed (scripts/setup --test)"

tm() { tmux -S "$TMP/tmux" -f /dev/null "$@" 2>/dev/null; }
trap 'tm kill-server; e2e_end' EXIT

# say LINE: type it and Enter. key KEY...: by tmux's names.
say() { tm send-keys -t t -l "$1" && tm send-keys -t t Enter; }
key() { tm send-keys -t t "$@"; }
on_screen() { tm capture-pane -p -t t | grep -q -- "$1"; }
# Does the pattern come? Whatever stood there before does not count, for the screen is
# empty again afterwards. (Nor does what was typed, if it is split: en""d.)
sees() {
	if ! until_true 30 on_screen "$1"; then
		tm capture-pane -p -t t | sed 's/^/# screen: /'
		return 1
	fi
	tm send-keys -t t -R && tm clear-history -t t
}
# guest LINE: the same in the guest's shell, once it has its prompt: what is typed while it
# asks the terminal where the cursor is may be lost.
last_is() { [ "$(tm capture-pane -p -t t | grep -v '^$' | tail -n 1)" = "$1" ]; }
prompted() { key Enter && until_true 2 last_is '~ #'; }
guest() { until_true 30 prompted && say "$1"; }
# Our terminal's mode, by the host's shell.
mode_is_whole() {
	say "stty -g >$TMP/after; echo mode se\"\"en"
	sees 'mode seen' && cmp -s "$TMP/before" "$TMP/after"
}

pool_start --min-idle 1 --max-idle 2 --max-total 2
V="$BIN/vmpool -p $POOL"
# shellcheck disable=SC2016
tm new-session -d -s t -x 100 -y 30 "env PS1='host> ' sh"
say "stty -g >$TMP/before; echo be\"\"gun"
sees begun
result $? "a terminal to try it in"

say "$V shell --wait 180"
sees '^~ #'
result $? "vmpool shell comes up in the user's home"
guest 'stty size; tty; hostname; echo $TERM en""d'
until_true 30 on_screen ' end' && on_screen '^30 100' && on_screen '^/dev/pts/' && on_screen '^vmpool' && sees '^[a-z].* end'
result $? "it is a terminal of the size and kind of ours"
tm resize-window -t t -x 120 -y 40
sized() { guest 'stty size' && until_true 2 on_screen '^40 120'; }
until_true 30 sized
result $? "a new size of the window arrives"

guest "sh -c 'echo be\"\"gun; exec sleep 1000'"
sees '^begun' && key C-c && guest 'echo "st""atus $?"' && sees '^status 130'
result $? "^C interrupts what runs, and nothing else"
guest "sh -c 'echo be\"\"gun; exec sleep 1000'"
sees '^begun' && key C-z && sees Stopped && guest 'kill -9 %1; fg; echo b""ack' && sees '^back'
result $? "^Z stops it, and the shell has its terminal back"
guest 'cat; echo o""ver' && say 'line' && until_true 30 on_screen '^line' && key C-d && sees '^over'
result $? "^D is the end of its input"

guest 'vi /tmp/note' && sees '^~' && key i && tm send-keys -t t -l 'written in vi' &&
	until_true 30 on_screen '^written in vi' && key Escape && until_true 30 on_screen '^- /tmp/note' &&
	say ':wq' &&
	guest 'wc -c </tmp/note; echo e""nd' && until_true 30 on_screen '^end' && sees '^14'
result $? "vi edits a file"
guest 'top' && until_true 30 on_screen 'PID' && on_screen 'Mem:' && key q && guest 'echo to""p $?' && sees '^top 0'
result $? "top shows and leaves"
guest 'exit 7' && sees '^host>' && say "echo st\"\"atus \$?" && sees '^status 7'
result $? "exit ends it, and its status is ours"
mode_is_whole
result $? "our terminal is itself again"

say "$V exec --wait 180 --tty -- sh -c 'tty; read -p \"name? \" x; echo hello \$x; exit 3'; echo st\"\"atus \$?"
until_true 200 on_screen '^name?' && say 'Ada' && until_true 30 on_screen '^status 3' && sees '^hello Ada'
result $? "exec --tty asks and is answered"
mode_is_whole
result $? "... and our terminal is itself again"
say "$V exec --wait 180 --tty -t 1 -- sleep 100; echo st\"\"atus \$?"
until_true 200 on_screen '^status 124' && sees '^vmpool: timed out'
result $? "... at its time-out, too, which is said at the beginning of a line"
mode_is_whole
result $? "... and our terminal is itself again"

# Ends that nobody planned: each leaves the terminal as it was.
for end in TERM HUP SEGV USR1; do
	say "$V shell --wait 180"
	until_true 200 on_screen '^~ #$'
	pid=$(pgrep -f "^$BIN/vmpool -p $POOL shell" | head -n 1)
	kill "-$end" "$pid"
	until_true 30 gone "$pid"
	mode_is_whole
	result $? "SIG$end to vmpool shell: our terminal is itself again"
	check "... and the VM is given back" until_true 30 stat_is in_use_count 0
done

say "$V shell --wait 180"
until_true 200 on_screen '^~ #$'
kill -KILL "$(supervisor_pid)"
sees 'supervisor has died' && mode_is_whole
result $? "if the pool dies, that is said, and our terminal is itself again"
check "no process of the pool is left" until_true 10 no_processes
tm kill-server
done_testing
