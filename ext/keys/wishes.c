#include "keys/wishes.h"

void
ku_want_keys(struct ku_ledger *ledger, long wanted)
{
    long before, after;
    do { /* the first wish is the reason */
        before = ku_atomic_get(&ledger->wanted_keys);
        long what = ku_wanted_keys(ledger), more = wanted & ~(long)KU_FOR_ALL;
        long who = (before != KU_NOT_WANTED ? before : wanted) & KU_FOR_ALL;
        after = (what > more ? what : more) | who;
    } while (after != before
             && !ku_atomic_exchange(&ledger->wanted_keys, before, after));
}

long
ku_wanted_keys(const struct ku_ledger *ledger)
{
    return ku_atomic_get(&ledger->wanted_keys) & ~(long)KU_FOR_ALL;
}

void
ku_clear_wish(struct ku_ledger *ledger, long fulfilled)
{
    (void)ku_atomic_exchange(&ledger->wanted_keys, fulfilled, KU_NOT_WANTED);
    (void)ku_atomic_exchange(&ledger->wanted_keys, fulfilled | KU_FOR_ALL,
                             KU_NOT_WANTED);
}
