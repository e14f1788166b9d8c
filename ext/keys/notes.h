/* What the owner of a connection does with its ledger: takes it for a step, notes there
   what has happened, and takes the events away that are to be told. */
#ifndef PYKEYUPDATE_NOTES_H
#define PYKEYUPDATE_NOTES_H

#include "keys/ledger.h"

/* Occupy an SSLObject, inside a critical section: one thread at a time may, and not in
   a callback of its own.  Returns KU_OK, KU_BUSY, KU_IN_CALLBACK or KU_FORKED.  After
   KU_OK the caller must vacate it again. */
struct ku_outcome ku_ledger_occupy(struct ku_ledger *ledger);
void ku_ledger_vacate(struct ku_ledger *ledger);

/* Note that new keys are due and not possible.  Returns 1 the first time. */
int ku_ledger_note_impossible(struct ku_ledger *ledger, enum ku_cause cause);

/* Note that the policy has refused a write.  Any thread may. */
void ku_ledger_note_refused_write(struct ku_ledger *ledger);

/* Note why the change of keys that has just been scheduled was due.  If it had been
   scheduled, or owed, for another reason before, that one counts. */
void ku_ledger_note_scheduled(struct ku_ledger *ledger, enum ku_change why);

/* Note that the connection has ended without a close_notify.  If nothing has come since
   our last KeyUpdate, that may be why.  `merely`: by the end of the stream, not by an
   error. */
void ku_ledger_note_end(struct ku_ledger *ledger, int merely);

/* Returns the events that nobody has been told of, and clears them. */
int ku_ledger_take_events(struct ku_ledger *ledger);

/* Note that a change of keys, which is `why_due`, has had to wait. */
void ku_ledger_note_deferral(struct ku_ledger *ledger);

#endif
