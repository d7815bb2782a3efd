# shellcheck shell=bash
# SPDX-License-Identifier: MIT
#
# lib.sh - what the scripts of this folder share: messages, cached downloads of
# Debian packages, cached C helpers, kernel modules in load order. Sourced, not
# run. Sets ROOT (the checkout), BUILD (everything made lands there) and leaves
# the working directory as it is.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
BUILD=${VMPOOL_BUILD:-$ROOT/build}
PROG=$(basename "$0")
export LC_ALL=C

say() { printf '%s: %s\n' "$PROG" "$*" >&2; }

die() {
	say "$*"
	exit 1
}

# usage: print the comment at the head of the running script (from its second
# paragraph on) as help.
usage() { awk 'NR > 3 && !/^#/ { exit } NR > 3 { sub(/^# ?/, ""); print }' "$0"; }

# need TOOL PACKAGE: the tool must be installed.
need() {
	command -v "$1" >/dev/null ||
		die "$1 is not installed: run scripts/setup, or apt-get install $2"
}

# take_lock FILE: wait for, and hold until exit, the lock on FILE (two scripts
# that make the same thing at once would make it twice).
take_lock() {
	mkdir -p "$(dirname "$1")"
	exec {LOCK_FD}>"$1"
	flock "$LOCK_FD"
}

# hash_of FILES...: one hash over names and contents.
hash_of() { sha256sum -- "$@" | sha256sum | cut -c1-16; }

# apt_show PACKAGE FIELD: a field of the newest candidate; refreshes the
# package lists once when they do not know the package.
apt_show() {
	local out
	out=$(apt-cache show --no-all-versions "$1" 2>/dev/null || true)
	if [ -z "$out" ]; then
		apt_refresh "$1 is not in the package lists"
		out=$(apt-cache show --no-all-versions "$1" 2>/dev/null || true)
	fi
	[ -n "$out" ] || die "package $1 not found (Debian 12 main is needed in apt's sources)"
	sed -n "s/^$2: *//p" <<<"$out" | head -n 1
}

apt_refresh() {
	[ "$(id -u)" = 0 ] || die "$1: run 'apt-get update' as root, then try again"
	apt-get -qq update || die "$1, and apt-get update failed"
}

# fetch_deb PACKAGE: download the .deb of the candidate version, unpack it into
# build/guest/cache/PACKAGE_VERSION and print that directory. Nothing is
# installed. A second call finds it there.
fetch_deb() {
	local pkg=$1 version dir tmp
	version=$(apt_show "$pkg" Version)
	dir=$BUILD/guest/cache/${pkg}_${version//[^A-Za-z0-9.+~-]/_}
	if [ ! -d "$dir" ]; then
		mkdir -p "$BUILD/guest/cache"
		tmp=$(mktemp -d "$dir.XXXXXX")
		say "fetching $pkg $version"
		download_deb "$pkg" "$tmp" >&2 || { rm -rf "$tmp" && die "cannot download $pkg $version"; }
		dpkg-deb -x "$tmp"/*.deb "$tmp/root" || { rm -rf "$tmp" && die "cannot unpack $pkg"; }
		mv -T "$tmp/root" "$dir"
		rm -rf "$tmp"
	fi
	printf '%s\n' "$dir"
}

# download_deb PACKAGE DIR. Root's own user for the download: apt's _apt user
# cannot write to DIR and warns. Stale lists name files that are gone: refresh
# once.
download_deb() (
	cd "$2" || exit 1
	apt-get -qq -o APT::Sandbox::User=root download "$1" && exit 0
	[ "$(id -u)" = 0 ] && apt-get -qq update &&
		apt-get -qq -o APT::Sandbox::User=root download "$1"
)

# modules_for DIR RELEASE NAMES...: paths (below DIR) of these modules and all
# they depend on, in load order, each once. Names that are built in are skipped;
# an unknown one is an error.
modules_for() {
	local dir=$1/lib/modules/$2
	shift 2
	awk -v builtin="$dir/modules.builtin" -v names="$*" '
		function key(path) { sub(/.*\//, "", path); sub(/\.ko.*/, "", path); gsub(/-/, "_", path); return path }
		{ sub(/:$/, "", $1); k = key($1); path[k] = $1; deps[k] = NF; for (i = 2; i <= NF; i++) dep[k, i] = $i }
		# modules.dep lists a direct dependency before what that one needs.
		function add(k,  i) {
			if (k in done) return
			done[k] = 1
			for (i = deps[k]; i >= 2; i--) add(key(dep[k, i]))
			print path[k]
		}
		END {
			while ((getline line < builtin) > 0) isbuiltin[key(line)] = 1
			n = split(names, name, " ")
			for (i = 1; i <= n; i++) {
				k = key(name[i])
				if (k in path) add(k)
				else if (!(k in isbuiltin)) { print "no module " name[i] > "/dev/stderr"; bad = 1 }
			}
			exit bad
		}' "$dir/modules.dep"
}

# unsigned_module FILE OUT: a kernel module without its signature, which takes an
# emulated machine longer to check than all the rest of loading it.
unsigned_module() {
	need strip binutils
	strip --strip-debug -o "$2" -- "$1"
}

# cc_static SOURCE...: compile a C helper statically, once per content; prints its
# path. Its name is that of the first source.
cc_static() {
	local out
	out=$BUILD/box/$(basename "$1" .c)-$(hash_of "$@")
	if [ ! -x "$out" ]; then
		need "${CC:-cc}" gcc
		mkdir -p "$BUILD/box"
		"${CC:-cc}" -std=gnu11 -D_GNU_SOURCE -I"$ROOT" -Os -Wall -Wextra -Werror -static -s -o "$out.$$" "$@" ||
			die "cannot compile $1"
		mv "$out.$$" "$out"
	fi
	printf '%s\n' "$out"
}
