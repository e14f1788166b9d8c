/* New keys that another thread, or the program, wants of a connection: its owner
   changes them with the next read or write. */
#ifndef PYKEYUPDATE_WISHES_H
#define PYKEYUPDATE_WISHES_H

#include "keys/ledger.h"

enum {
    KU_NOT_WANTED,
    KU_WANTED,
    KU_WANTED_OF_BOTH,
    KU_UNLESS_INHERITED = 4,
    KU_FOR_ALL = 8 /* rekey_all() wants them */
};

/* Want new keys: raise `wanted_keys` to at least `wanted`, which may have KU_FOR_ALL.  And
   no longer want what has been `fulfilled`: reset `wanted_keys`, unless more has been
   wanted since.  What is wanted now, without KU_FOR_ALL. */
void ku_want_keys(struct ku_ledger *ledger, long wanted);
long ku_wanted_keys(const struct ku_ledger *ledger);
void ku_clear_wish(struct ku_ledger *ledger, long fulfilled);

#endif
