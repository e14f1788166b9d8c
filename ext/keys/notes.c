#include "keys/notes.h"

#include "keys/ledgers.h"
#include "keys/obstacles.h"

struct ku_outcome
ku_ledger_occupy(struct ku_ledger *ledger)
{
    unsigned long me = PyThread_get_thread_ident();
    if (ledger->busy_thread == 0) {
        ledger->busy_thread = me;
        return (struct ku_outcome){.refusal = KU_OK};
    }
    enum ku_refusal refusal = ledger->orphaned            ? KU_FORKED
                              : ledger->busy_thread == me ? KU_IN_CALLBACK
                                                          : KU_BUSY;
    return (struct ku_outcome){.refusal = refusal};
}

void
ku_ledger_vacate(struct ku_ledger *ledger)
{
    ledger->busy_thread = 0;
}

void
ku_ledger_note_scheduled(struct ku_ledger *ledger, enum ku_change why)
{
    if (ledger->why_next == KU_CHANGE_EXPLICIT) {
        ledger->why_next = (unsigned char)why;
    }
}

void
ku_ledger_note_deferral(struct ku_ledger *ledger)
{
    if (!ledger->deferring) {
        ledger->deferring = 1;
        ku_ledger_count(ledger, KU_COUNT_DEFERRED);
        ledger->events |= KU_EVENT_DEFERRED;
    }
}

void
ku_ledger_note_refused_write(struct ku_ledger *ledger)
{
    ku_ledger_count(ledger, KU_COUNT_WRITES_REFUSED);
}

/* To compare the counts of records costs reading nothing, unlike a flag that each read
   would have to clear.

   Many peers, most HTTP clients among them, just close when they have what they wanted.
   So that is suspicious only if they have got nothing but our KeyUpdate.  (One that
   fails over it, with data behind it unread, resets the connection when it closes.) */
void
ku_ledger_note_end(struct ku_ledger *ledger, int merely)
{
    ku_note_lasting_obstacle(ledger, KU_CAUSE_ENDED);
    if (merely && ledger->sent.records > 0) {
        return;
    }
    if (ledger->unheard && (uint32_t)ledger->received.records == ledger->heard_before) {
        ku_ledger_count(ledger, KU_COUNT_FAILED_AFTER_UPDATE);
        ledger->events |= KU_EVENT_FAILED;
    }
    ledger->unheard = 0;
}

int
ku_ledger_note_impossible(struct ku_ledger *ledger, enum ku_cause cause)
{
    ku_ledgers_lock(); /* several threads may write to a managed socket */
    int is_first = !ledger->impossible;
    ledger->impossible = 1;
    ku_ledgers_unlock();
    if (is_first) {
        ku_ledger_count_cause(ledger, cause);
    }
    return is_first;
}

int
ku_ledger_take_events(struct ku_ledger *ledger)
{
    int events = ledger->events;
    ledger->events = 0;
    return events;
}
