#include "keys/ledgers.h"

#include "keys/key_clock.h"
#include "keys/wishes.h"
#include "system/forks.h"
#include "system/mutex.h"

#include <string.h>

static ku_mutex ledgers_lock = KU_MUTEX_INITIALIZER;
static struct ku_ledger *oldest_ledger, *newest_ledger;
static uint64_t process_counts[KU_COUNT_END];
static struct ku_reasons process_reasons;
static uint64_t ledgers_opened, ledgers_open;
static struct walk *walks; /* that are under way */
static ku_time watched_since = KU_NEVER;

/* A walk through the list that releases the lock on its way. */
struct walk {
    struct ku_ledger *next;
    struct walk *other;
};

void
ku_ledgers_lock(void)
{
    ku_mutex_lock(&ledgers_lock);
}

void
ku_ledgers_unlock(void)
{
    ku_mutex_unlock(&ledgers_lock);
}

void
ku_ledgers_add(struct ku_ledger *ledger)
{
    ku_ledgers_lock();
    ledger->number = ++ledgers_opened;
    ledger->previous = newest_ledger;
    *(newest_ledger != NULL ? &newest_ledger->next : &oldest_ledger) = ledger;
    newest_ledger = ledger;
    ledgers_open++;
    ku_ledgers_unlock();
}

void
ku_ledgers_remove(struct ku_ledger *ledger)
{
    ku_ledgers_lock();
    *(ledger->next != NULL ? &ledger->next->previous : &newest_ledger) =
        ledger->previous;
    *(ledger->previous != NULL ? &ledger->previous->next : &oldest_ledger) =
        ledger->next;
    for (struct walk *walk = walks; walk != NULL; walk = walk->other) {
        walk->next = walk->next == ledger ? ledger->next : walk->next;
    }
    ledgers_open--;
    ku_ledgers_unlock();
}

/* --- what has been counted -------------------------------------------------------- */

/* Count it, also in the process's count by `reason`, if it has one. */
static void
add_to_counts(struct ku_ledger *ledger, enum ku_count what, uint64_t *reason)
{
    ku_ledgers_lock();
    ledger->counts[what]++;
    process_counts[what]++;
    if (reason != NULL) {
        (*reason)++;
    }
    ku_ledgers_unlock();
}

void
ku_ledger_count(struct ku_ledger *ledger, enum ku_count what)
{
    add_to_counts(ledger, what, NULL);
}

void
ku_ledger_count_change(struct ku_ledger *ledger, enum ku_count what, enum ku_change why)
{
    add_to_counts(ledger, what, &process_reasons.changes[why]);
}

void
ku_ledger_count_cause(struct ku_ledger *ledger, enum ku_cause cause)
{
    add_to_counts(ledger, KU_COUNT_IMPOSSIBLE, &process_reasons.causes[cause]);
}

void
ku_ledger_count_cut(struct ku_ledger *ledger, enum ku_limit limit)
{
    add_to_counts(ledger, KU_COUNT_CUT_OFF, &process_reasons.limits[limit]);
}

void
ku_ledgers_totals(uint64_t counts[KU_COUNT_END], uint64_t *open, uint64_t *opened)
{
    ku_ledgers_lock();
    memcpy(counts, process_counts, sizeof(process_counts));
    *open = ledgers_open;
    *opened = ledgers_opened;
    ku_ledgers_unlock();
}

void
ku_ledgers_reasons(struct ku_reasons *reasons)
{
    ku_ledgers_lock();
    *reasons = process_reasons;
    ku_ledgers_unlock();
}

/* --- what other threads want and see ---------------------------------------------- */

#define SEEN_AT_ONCE 256 /* ledgers, while others wait for the lock */

size_t
ku_ledgers_want_keys(uint64_t *last, size_t most, long wanted)
{
    size_t count = 0;
    ku_ledgers_lock();
    for (struct ku_ledger *ledger = oldest_ledger; ledger != NULL && count < most;
         ledger = ledger->next) {
        if (ledger->number > *last && !ledger->is_shared && !ledger->inherited
            && ledger->obstacle == KU_CAUSE_END) {
            ku_want_keys(ledger, wanted);
            *last = ledger->number;
            count++;
        }
    }
    ku_ledgers_unlock();
    return count;
}

/* Copy member by member: the owner changes two of them meanwhile. */
static struct ku_keys
view_of_keys(const struct ku_keys *keys)
{
    return (struct ku_keys){.records = KU_SEE(keys->records),
                            .bytes = KU_SEE(keys->bytes),
                            .since = keys->since,
                            .max_records = keys->max_records,
                            .max_bytes = keys->max_bytes,
                            .max_age = keys->max_age};
}

static ku_time
later_of(ku_time a, ku_time b)
{
    return a > b ? a : b;
}

/* With the lock held. */
static void
view_ledger(const struct ku_ledger *ledger, struct ku_view *view)
{
    *view = (struct ku_view){
        .number = ledger->number,
        .sent = view_of_keys(&ledger->sent),
        .received = view_of_keys(&ledger->received),
        .last_data = later_of(KU_SEE(ledger->last_data), KU_SEE(watched_since)),
        .facts = ledger->facts,
        .why_cut = KU_SEE(ledger->why_cut),
        .connected = ledger->connected,
        .obstacle = ledger->obstacle,
        .inherited = ledger->inherited,
        .answer_owed = KU_SEE(ledger->answer_owed),
        .request_outstanding = KU_SEE(ledger->request_outstanding)};
    memcpy(view->counts, ledger->counts, sizeof(view->counts));
}

void
ku_ledger_view(struct ku_ledger *ledger, struct ku_view *view)
{
    ku_ledgers_lock();
    view_ledger(ledger, view);
    ku_ledgers_unlock();
}

void
ku_ledgers_watch(void)
{
    ku_time now = ku_key_clock();
    ku_ledgers_lock();
    if (watched_since == KU_NEVER) {
        KU_SHOW(watched_since, now);
    }
    ku_ledgers_unlock();
}

int
ku_ledgers_are_watched(void)
{
    return KU_SEE(watched_since) != KU_NEVER;
}

static void
end_walk(struct walk *walk)
{
    struct walk **link = &walks;
    while (*link != walk) {
        link = &(*link)->other;
    }
    *link = walk->other;
}

void
ku_ledgers_view(void (*see)(void *argument, const struct ku_view *view), void *argument)
{
    struct ku_view view;
    ku_ledgers_lock();
    struct walk walk = {.next = oldest_ledger, .other = walks};
    walks = &walk;
    for (unsigned count = 1; walk.next != NULL; count++) {
        view_ledger(walk.next, &view);
        see(argument, &view);
        walk.next = walk.next->next;
        if (count % SEEN_AT_ONCE == 0) {
            ku_ledgers_unlock();
            ku_ledgers_lock();
        }
    }
    end_walk(&walk);
    ku_ledgers_unlock();
}

/* --- forks ------------------------------------------------------------------------ */

static void
mark_inherited(void)
{
    unsigned long me = PyThread_get_thread_ident();
    walks = NULL; /* of threads that are not here */
    for (struct ku_ledger *ledger = oldest_ledger; ledger != NULL;
         ledger = ledger->next) {
        ledger->inherited = 1;
        ledger->orphaned |= ledger->busy_thread != 0 && ledger->busy_thread != me;
    }
    ku_ledgers_unlock();
}

/* A thread that is in the list while another thread forks does not exist in the child. */
int
ku_ledgers_watch_forks(void)
{
    return ku_at_fork(ku_ledgers_lock, ku_ledgers_unlock, mark_inherited);
}
