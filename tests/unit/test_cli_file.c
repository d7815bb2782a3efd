/* SPDX-License-Identifier: MIT
 *
 * test_cli_file.c - the commands of vmpool on files, as a user runs them, with
 * the real job and the real agent: which runs here, so that the files of "the
 * VM" can be looked at.
 */
#include "tests/lib/clienttest.h"

#include <dirent.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

static char dir[64], program[4096];

static int
setup(void **state)
{
	const char *bin = getenv("VMPOOL_BIN");
	struct fixture *f = calloc(1, sizeof(*f));

	AN(f);
	AN(realpath(bin != NULL ? bin : "build/bin", program));
	(void)strcat(program, "/vmpool");
	(void)strcpy(dir, "/tmp/test_cli_file.XXXXXX");
	AN(mkdtemp(dir));
	fakepool_open_agents(&f->fp, "default", 1);
	*state = f;
	return 0;
}

/* A shell's command line, with $D the test's directory and vm the program; what it
 * prints is in out and err there. */
static int
sh(const char *script)
{
	char line[8192];
	int status;

	(void)snprintf(
	    line, sizeof(line),
	    "cd / && D=%s && V=%s && vm() { $V \"$@\"; } && umask 022 && { %s\n} >%s/out "
	    "2>%s/err",
	    dir, program, script, dir, dir);
	status = system(line);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int
finish(void **state)
{
	struct fixture *f = *state;

	fakepool_close(&f->fp);
	free(f);
	return sh("rm -rf $D; exec >/dev/null") == 0 && access(dir, F_OK) < 0 ? 0 : -1;
}

static const char *
text_of(const char *name)
{
	static char buf[65536];
	char path[128];
	ssize_t n;
	int fd;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	n = read(fd, buf, sizeof(buf) - 1);
	assert_true(n >= 0);
	buf[n] = '\0';
	(void)close(fd);
	return buf;
}

/* With a VM for each command, the script must end like that. */
static void
run(struct fixture *f, int status, const char *script)
{
	int got;

	for (const char *p = script; (p = strpbrk(p, "v$")) != NULL; p++)
		if (strncmp(p, "vm ", 3) == 0 || strncmp(p, "$V ", 3) == 0)
			fakepool_add_vm(&f->fp);
	got = sh(script);
	if (got != status)
		fail_msg("%s: status %d\n%s", script, got, text_of("err"));
}

static void
says(const char *text)
{
	if (strstr(text_of("err"), text) == NULL)
		fail_msg("\"%s\" does not say \"%s\"", text_of("err"), text);
}

/* --- tests ---------------------------------------------------------------------------- */

static void
put(void **state)
{
	struct fixture *f = *state;

	run(f, 0,
	    "mkdir $D/in $D/vm; echo text >$D/in/f; chmod 640 $D/in/f;"
	    "touch -d '2001-02-03 04:05:06.123456789' $D/in/f;"
	    "vm put $D/in/f $D/vm/g && cmp $D/in/f $D/vm/g &&"
	    "[ \"$(stat -c '%a %y' $D/vm/g)\" = \"$(stat -c '%a %y' $D/in/f)\" ]");
	run(f, 0, "vm put $D/in/f $D/vm/ && cmp $D/in/f $D/vm/f");
	run(f, 0,
	    "echo one | vm put - $D/vm/n && vm put -a - $D/vm/n <$D/in/f &&"
	    "[ \"$(cat $D/vm/n)\" = \"$(printf 'one\ntext')\" ] &&"
	    "[ $(stat -c %a $D/vm/n) = 644 ]");
	run(f, 0, "vm put -p -m 2751 $D/in/f $D/vm/x/y/z && [ $(stat -c %a $D/vm/x/y/z) = 2751 ]");
	run(f, 0,
	    "head -c 5000000 /dev/urandom >$D/in/big; vm put - $D/vm/big <$D/in/big &&"
	    "cmp $D/in/big $D/vm/big");
	run(f, 0,
	    "truncate -s 100M $D/in/holes; vm put $D/in/holes $D/vm/holes &&"
	    "[ $(stat -c %s $D/vm/holes) = 104857600 ] && [ $(stat -c %b $D/vm/holes) -lt 99 ]");
	run(f, 0, "vm put --root $D/vm $D/in/f /rooted && cmp $D/in/f $D/vm/rooted");
}

static void
put_fails(void **state)
{
	struct fixture *f = *state;

	run(f, 1, "mkdir $D/in; vm put $D/none $D/x");
	says("/none: No such file or directory");
	run(f, 1, "vm put $D/in $D/x");
	says("is a directory (use -r)");
	run(f, 1, "vm put /etc/passwd $D/no/x");
	says("/no/x\": No such file or directory (ENOENT)");
	run(f, 1, "vm put - $D/ </dev/null");
	says("has no name of its own");
	run(f, 1, "vm put - $D </dev/null");
	says("EISDIR");
	run(f, 1, "vm put --root $D/in /etc/passwd ../x");
	says("leads out of the root");
	run(f, 2, "vm put /etc/passwd");
	run(f, 2, "vm put -m 9 /etc/passwd /x");
	run(f, 2, "vm put -r - /x");
	run(f, 0, "ls -A $D | tr '\\n' ' ' >&2; [ \"$(ls -A $D | wc -l)\" = 3 ]");
}

static void
get(void **state)
{
	struct fixture *f = *state;

	run(f, 0,
	    "mkdir $D/vm $D/to; echo text >$D/vm/f; chmod 6775 $D/vm/f;"
	    "touch -d '2001-02-03 04:05:06.123456789' $D/vm/f;"
	    "vm get $D/vm/f $D/to/g && cmp $D/vm/f $D/to/g &&"
	    "[ $(stat -c %a $D/to/g) = 755 ] &&"
	    "[ \"$(stat -c %y $D/vm/f)\" = \"$(stat -c %y $D/to/g)\" ]");
	run(f, 0, "vm get $D/vm/f $D/to && cmp $D/vm/f $D/to/f");
	run(f, 0, "rm $D/to/f; vm get $D/vm/f $D/to/ && cmp $D/vm/f $D/to/f");
	run(f, 0, "echo old >$D/to/f; vm get $D/vm/f $D/to/f && cmp $D/vm/f $D/to/f");
	run(f, 0, "[ \"$(vm get $D/vm/f -)\" = text ]");
	run(f, 0, "vm get $D/vm/f /dev/null && [ -c /dev/null ]");
	run(f, 0, "vm get $D/vm/f /dev/stdout | cmp $D/vm/f");
	run(f, 0, "cd $D/to && vm get $D/vm/f here && cmp $D/vm/f here");
	run(f, 0,
	    "head -c 5000000 /dev/urandom >$D/vm/big; vm get $D/vm/big $D/to/ &&"
	    "cmp $D/vm/big $D/to/big");
	run(f, 0,
	    "truncate -s 100M $D/vm/holes; vm get $D/vm/holes $D/to/ &&"
	    "cmp $D/vm/holes $D/to/holes && [ $(stat -c %b $D/to/holes) -lt 99 ]");
	run(f, 0, "[ \"$(vm cat $D/vm/f $D/vm/f)\" = \"$(printf 'text\\ntext')\" ]");
	run(f, 0, "[ \"$(ls -A $D/to | wc -l)\" = 5 ]");
}

static void
get_fails(void **state)
{
	struct fixture *f = *state;

	run(f, 1, "mkdir $D/to; vm get $D/none $D/to/x");
	says("/none\": No such file or directory (ENOENT)");
	run(f, 1, "vm get /tmp $D/to/x");
	says("is a directory (use -r)");
	run(f, 1, "vm get /dev/zero $D/to/x");
	says("not a regular file");
	run(f, 1, "vm get /etc/passwd $D/no/x");
	says("/no/x: No such file or directory");
	run(f, 1, "vm get /etc/passwd /dev/full");
	says("/dev/full: No space left on device");
	run(f, 1, "vm cat /etc/passwd >/dev/full");
	says("stdout: No space left on device");
	run(f, 1, "vm cat /etc/passwd $D/none");
	run(f, 1, "truncate -s 3M $D/big; vm get --limit 2 $D/big $D/to/x");
	says("the VM sent more than 2 MiB");
	run(f, 1, "mkdir $D/t; truncate -s 3M $D/t/big; vm get -r --limit 2 $D/t $D/to/x");
	says("the VM sent more than 2 MiB");
	run(f, 2, "vm get --limit x /etc/passwd $D/to/x");
	run(f, 2, "vm get /etc/passwd");
	run(f, 0, "[ -z \"$(ls -A $D/to)\" ]");
}

/* Until nothing of ours is in a directory any more. */
static void
assert_gets_empty(const char *name)
{
	char path[128];
	unsigned n = 1;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	for (int tries = 0; tries < 1000 && n > 0; tries++) {
		DIR *d = opendir(path);

		assert_non_null(d);
		for (n = 0; readdir(d) != NULL; n++)
			;
		(void)closedir(d);
		n -= 2;
		if (n > 0)
			(void)poll(NULL, 0, 10); /* a dead client's VM is ended in its time */
	}
	assert_int_equal(n, 0);
}

/* Whatever ends the program, no half file is left: here at once, there soon. */
static void
cuts(void **state)
{
	struct fixture *f = *state;

	run(f, 137,
	    "mkdir $D/vm $D/to $D/in; truncate -s 1T $D/in/endless;"
	    "timeout -s KILL 1 $V get $D/in/endless $D/to/x");
	assert_gets_empty("to");
	run(f, 124, "yes | timeout -s INT 1 $V put - $D/vm/x");
	assert_gets_empty("vm");
	/* Trees: what is half done is taken back. */
	run(f, 143,
	    "mkdir $D/t; truncate -s 1T $D/t/endless; { $V get -r $D/in $D/to/x & get=$!;"
	    "until ls $D/to/.vmpool-* >/dev/null; do :; done; kill -TERM $get; wait $get; }");
	assert_gets_empty("to");
	run(f, 143,
	    "{ $V put -r $D/t $D/vm/x & put=$!;"
	    "until ls $D/vm/.vmpool-*/.vmpool-* >/dev/null; do :; done; kill -TERM $put; wait "
	    "$put; }");
	assert_gets_empty("vm");
	/* Its reader goes away, and so does it. */
	run(f, 0,
	    "{ vm cat $D/in/endless; echo $? >$D/status; } | head -c 1 >/dev/null;"
	    "[ $(cat $D/status) = 141 ]");
}

static void
names(void **state)
{
	struct fixture *f = *state;

	run(f, 0,
	    "vm mkdir -p $D/a/b $D/a/b && vm mkdir -m 700 $D/a/c &&"
	    "[ $(stat -c %a $D/a/c) = 700 ] && echo x >$D/a/f");
	run(f, 0, "vm mv $D/a/f $D/a/g && vm mv $D/a/g $D/a/b/ && [ -e $D/a/b/g ]");
	run(f, 1, "echo y >$D/a/h; vm mv -n $D/a/h $D/a/b/g");
	says("File exists (EEXIST)");
	run(f, 0, "vm exists $D/a/b/g");
	run(f, 1, "vm exists $D/a/b/none; s=$?; [ ! -s $D/err ] && exit $s");
	run(f, 2, "vm exists --root $D ../x");
	run(f, 1, "vm rm $D/a");
	says("not empty (ENOTEMPTY)");
	run(f, 1, "vm rm $D/none $D/a/h");
	run(f, 0, "[ ! -e $D/a/h ] && vm rm -r $D/a && [ ! -e $D/a ]");
	run(f, 2, "vm rm");
	run(f, 2, "vm mv /x");
	run(f, 2, "vm mkdir -m 8 /x");
}

static void
lists(void **state)
{
	struct fixture *f = *state;
	json_t *all, *one;

	run(f, 0,
	    "mkdir $D/l; cd $D/l; echo 123 >b; echo >a; mkdir .c; ln -s b d;"
	    "printf x >\"$(printf 'n\\nl')\"; printf x >\"$(printf '\\377')\"; vm ls $D/l");
	assert_string_equal(text_of("out"), ".c\na\nb\nd\nn\nl\n\xff\n");
	run(f, 0, "vm ls -0 $D/l | tr '\\n\\0' '_\\n'");
	assert_string_equal(text_of("out"), ".c\na\nb\nd\nn_l\n\xff\n");
	run(f, 0,
	    "vm ls -l $D/l | grep -qE '^-rw-r--r-- +1 +[0-9]+ +[0-9]+ +4 [0-9-]+ [0-9:]+ b$'");
	run(f, 0, "vm ls $D/l/b | grep -qx $D/l/b");
	run(f, 0, "vm ls --json $D/l");
	all = json_loads(text_of("out"), 0, NULL);
	assert_int_equal(json_array_size(all), 6);
	one = json_array_get(all, 2);
	assert_string_equal(json_string_value(json_object_get(one, "name")), "b");
	assert_int_equal(json_integer_value(json_object_get(one, "size")), 4);
	one = json_array_get(all, 5);
	assert_true(json_is_null(json_object_get(one, "name")));
	assert_string_equal(json_string_value(json_object_get(one, "name_hex")), "ff");
	json_decref(all);
	run(f, 0,
	    "vm stat $D/l/d | grep -qx 'type:   link' &&"
	    "vm stat -L $D/l/d | grep -qx 'size:   4' &&"
	    "vm stat --json $D/l/b | grep -q '\"mode\": 420'");
	run(f, 1, "vm ls $D/none");
	says("ENOENT");
	run(f, 1, "vm stat $D/none");
}

/* --- trees ---------------------------------------------------------------------------------- */

#define MAKE_TREE \
	"mkdir -p $D/t/sub/deep $D/t/empty; cd $D/t; echo 1 >f; chmod 4751 f;" \
	"touch -d '2001-02-03 04:05:06.123456789' f; head -c 300000 /dev/urandom >sub/big; chmod " \
	"600 " \
	"sub/big;" \
	"ln -s ../f sub/link; ln f hard; : >sub/deep/none; printf x >\"$(printf 'n\\nl \\377')\";" \
	"mkdir -p $(printf '%0120d/%0120d' 1 2); echo long >$(printf '%0120d/%0120d/%0120d' 1 2 " \
	"3);" \
	"chmod 750 sub; touch -hd '2011-02-03 04:05:06.5' sub sub/link empty .; cd /;"
/* Types, modes, number of names, sizes of what has one, times, links, bytes of names. */
#define PRINT \
	"find . -type d -printf '%p %y %m %T@\\n' -o -printf '%p %y %m %n %s %T@ %l\\n' | sort"

static void
trees(void **state)
{
	struct fixture *f = *state;

	run(f, 0,
	    MAKE_TREE "vm put -r $D/t $D/vm && diff -r $D/t $D/vm &&"
		      "(cd $D/t && " PRINT ") >$D/1 && (cd $D/vm && " PRINT ") >$D/2 &&"
		      "diff $D/1 $D/2");
	run(f, 0, "vm put -r -p $D/t $D/in/to/ && diff -r $D/t $D/in/to/t");
	run(f, 0,
	    "truncate -s 50M $D/in/to/t/holes; vm put -r $D/in/to/t $D/in/b &&"
	    "vm get -r $D/in/b $D/in/c && [ $(du -s $D/in/b $D/in/c | awk '{ n += $1 } END { print "
	    "n }') -lt 2000 ]");
	run(f, 0, "mkdir $D/void; vm put -r $D/t $D/void && diff -r $D/t $D/void");
	/* Back: the same, but for what no VM may give. */
	run(f, 0,
	    "vm get -r $D/vm $D/back && diff -r $D/t $D/back &&"
	    "[ $(stat -c %a $D/back/f) = 751 ] && chmod 4751 $D/back/f &&"
	    "(cd $D/back && " PRINT ") >$D/2 && diff $D/1 $D/2");
	run(f, 0, "mkdir $D/into; vm get -r $D/vm $D/into/ && diff -r $D/t $D/into/vm");
	run(f, 0, "[ -z \"$(find $D -name '.vmpool-*')\" ]");
	/* Beneath a root: the same. */
	run(f, 0,
	    "vm put -rp --root $D/void $D/t /r/s && diff -r $D/t $D/void/r/s &&"
	    "vm get -r --root $D/void r/s $D/rooted && diff -r $D/t $D/rooted");
}

static void
trees_refused(void **state)
{
	struct fixture *f = *state;

	run(f, 1, MAKE_TREE "mkdir $D/full; : >$D/full/x; vm put -r $D/t $D/full");
	says("not empty");
	run(f, 1, "vm get -r $D/t $D/full");
	says("not empty");
	run(f, 1, "vm put -r $D/full/x $D/y");
	says("Not a directory");
	run(f, 1, "vm get -r $D/full/x $D/y");
	says("is no directory");
	run(f, 1, "vm get -r $D/none $D/y");
	says("ENOENT");
	run(f, 1, "vm put -r $D/t $D/no/y");
	says("ENOENT");
	/* Of a VM: a link that leads out, an absolute one, what is no file. */
	run(f, 1, "mkdir $D/vm; ln -s ../../etc/passwd $D/vm/l; vm get -r $D/vm $D/y");
	says("refused: the VM sent a link that leads out");
	run(f, 1, "ln -sf /etc/passwd $D/vm/l; vm get -r $D/vm $D/y");
	says("refused: the VM sent a link that leads out");
	run(f, 1, "rm $D/vm/l; mkfifo $D/vm/fifo; vm get -r $D/vm $D/y");
	says("neither file, directory nor link");
	/* What is made so far goes, whatever its mode; a name commands no terminal. */
	run(f, 1,
	    "mkdir -p $D/u/a/b; chmod 0 $D/u/a/b; mkfifo \"$D/u/$(printf 'z\\033\\nx')\";"
	    "vm get -r $D/u $D/y");
	says(": \"z??x\"");
	/* Of this host: told, and left out. */
	run(f, 0, "echo >$D/vm/f; vm put -r $D/vm $D/z && [ \"$(ls $D/z)\" = f ]");
	says("left out: ./fifo");
	run(f, 0, "[ ! -e $D/y ] && ! find $D -name '.vmpool-*' | grep . >&2");
}

/* A root is not left, neither by .. nor by a link. */
static void
trees_confined(void **state)
{
	struct fixture *f = *state;

	run(f, 1, "mkdir $D/vm; ln -s / $D/vm/out; mkdir $D/w; vm put -r --root $D/vm $D/w ../x");
	says("leads out of the root");
	run(f, 1, "vm put -r --root $D/vm $D/w out/tmp/x");
	says("a symbolic link is in the way");
	run(f, 1, "vm get -r --root $D/vm .. $D/y");
	says("leads out of the root");
	run(f, 1, "vm get -r --root $D/vm out/etc $D/y");
	says("a symbolic link is in the way");
	run(f, 0, "[ \"$(ls -A $D/vm)\" = out ] && [ ! -e $D/y ] && [ ! -e $D/x ]");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, finish)

int
main(void)
{
	static const struct CMUnitTest tests[] = {
	    TEST(put),	 TEST(put_fails), TEST(get),   TEST(get_fails),	    TEST(cuts),
	    TEST(names), TEST(lists),	  TEST(trees), TEST(trees_refused), TEST(trees_confined),
	};

	return cmocka_run_group_tests_name("vmpool on files", tests, NULL, NULL);
}
