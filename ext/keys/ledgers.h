/* All ledgers of the process: the list of them and its lock, what was counted on all of
   them, and what other threads may see of one. */
#ifndef PYKEYUPDATE_LEDGERS_H
#define PYKEYUPDATE_LEDGERS_H

#include "keys/ledger.h"

/* The lock of the list, which also protects what other threads see of a ledger.  Held
   only for a moment, with or without the GIL. */
void ku_ledgers_lock(void);
void ku_ledgers_unlock(void);

void ku_ledgers_add(struct ku_ledger *ledger);
void ku_ledgers_remove(struct ku_ledger *ledger);

/* Hold the lock across a fork(), and mark what the child inherits.  Returns 0, or -1 on
   failure. */
int ku_ledgers_watch_forks(void);

/* Count it, on the ledger and in the process; the last three also by reason.  The counts
   of one connection are not split by reason: that would take more memory than all that
   is kept of it. */
void ku_ledger_count(struct ku_ledger *ledger, enum ku_count what);
void ku_ledger_count_change(struct ku_ledger *ledger, enum ku_count what,
                            enum ku_change why);
void ku_ledger_count_cause(struct ku_ledger *ledger, enum ku_cause cause);
void ku_ledger_count_cut(struct ku_ledger *ledger, enum ku_limit limit);

/* The totals of the process: what was counted, and how many ledgers are open and have
   ever been opened. */
void ku_ledgers_totals(uint64_t counts[KU_COUNT_END], uint64_t *open, uint64_t *opened);

/* How often keys were changed, could not be, and peers were cut off, by reason. */
struct ku_reasons {
    uint64_t changes[KU_CHANGE_END], causes[KU_CAUSE_END], limits[KU_LIMIT_END];
};
void ku_ledgers_reasons(struct ku_reasons *reasons);

/* Want new keys of up to `most` connections with a number above `*last`.  Sets `*last`
   to the number of the last of them, and returns how many they were.  Skips managed
   sockets, inherited connections, and those that have no keys yet or whose keys cannot
   be changed. */
size_t ku_ledgers_want_keys(uint64_t *last, size_t most, long wanted);

/* What another thread may see of a connection.  Before the first handshake is complete,
   the keys are all 0. */
struct ku_view {
    uint64_t number;
    struct ku_keys sent, received;
    uint32_t counts[KU_COUNT_END];
    ku_time last_data; /* when data last went or came, as far as that has been noted */
    struct ku_facts facts;
    const char *why_cut;
    unsigned char connected, obstacle, inherited;
    unsigned char answer_owed, request_outstanding;
};

/* From the first call on, note when data goes or comes.  The clock would take some two
   hundredths of the time of a small message, so it is not read for nothing. */
void ku_ledgers_watch(void);
int ku_ledgers_are_watched(void);

/* Look at a connection that cannot be freed meanwhile, from any thread. */
void ku_ledger_view(struct ku_ledger *ledger, struct ku_view *view);

/* Look at all connections, one after the other.  `see` is called under the lock of the
   list, which is released now and then so that nobody waits long for it. */
void ku_ledgers_view(void (*see)(void *argument, const struct ku_view *view),
                     void *argument);

#endif
