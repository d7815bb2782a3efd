/* SPDX-License-Identifier: MIT
 *
 * test_slot.c - the state word and the whole table of transitions.
 */
#include "shm/slot.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define S ACTOR_SUPERVISOR
#define C ACTOR_CLIENT

/* Written down a second time, from the design and not from slot.c: rows from,
 * columns to. Whoever changes a transition has to change his mind twice. */
static const unsigned expected[SLOT_STATES][SLOT_STATES] = {
    /*             EMPTY  STARTING IDLE   IN_USE RESETTING DEAD */
    /* EMPTY */ {0, S, 0, 0, 0, 0},
    /* STARTING */ {S, 0, S, S, 0, 0},
    /* IDLE */ {S, 0, 0, C, S | C, 0},
    /* IN_USE */ {0, 0, S | C, S | C, S | C, S},
    /* RESETTING */ {S, 0, S, S, 0, 0},
    /* DEAD */ {S | C, 0, 0, 0, 0, 0},
};

static void
every_transition(void **state)
{
	(void)state;
	for (unsigned from = 0; from < SLOT_STATES; from++)
		for (unsigned to = 0; to < SLOT_STATES; to++)
			for (unsigned actor = 0; actor < 4; actor++) {
				bool want = (expected[from][to] & actor) != 0;

				if (slot_legal(from, to, actor) != want)
					fail_msg("%s -> %s by %u", slot_state_name(from),
						 slot_state_name(to), actor);
			}
}

static void
unknown_states(void **state)
{
	(void)state;
	for (unsigned s = SLOT_STATES; s < 256; s++) {
		assert_false(slot_legal(s, SLOT_EMPTY, ACTOR_SUPERVISOR));
		assert_false(slot_legal(SLOT_EMPTY, s, ACTOR_SUPERVISOR));
		assert_false(slot_legal(s, s, ACTOR_SUPERVISOR));
		assert_string_equal(slot_state_name(s), "corrupt");
	}
	assert_false(slot_legal((enum slot_state) - 1, SLOT_EMPTY, ACTOR_SUPERVISOR));
}

static void
word_fields(void **state)
{
	static const uint64_t generations[] = {0, 1, 0xffffffff, SLOT_GENERATION_MAX};
	static const uint32_t clients[] = {0, 1, 1023, SHM_NO_CLIENT};

	(void)state;
	for (unsigned s = 0; s < SLOT_STATES; s++)
		for (unsigned c = 0; c < ARRAY_SIZE(clients); c++)
			for (unsigned g = 0; g < ARRAY_SIZE(generations); g++) {
				uint64_t w = slot_word(s, clients[c], generations[g]);

				assert_int_equal(slot_state(w), s);
				assert_int_equal(slot_client(w), clients[c]);
				assert_true(slot_generation(w) == generations[g]);
			}
	assert_int_equal(slot_state(0), SLOT_EMPTY);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(every_transition),
	    cmocka_unit_test(unknown_states),
	    cmocka_unit_test(word_fields),
	};

	return cmocka_run_group_tests_name("slot", tests, NULL, NULL);
}
