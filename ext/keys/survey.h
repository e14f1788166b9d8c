/* The ages and the use of the present keys of all connections. */
#ifndef PYKEYUPDATE_SURVEY_H
#define PYKEYUPDATE_SURVEY_H

#include "keys/ledger.h"

/* clang-format off */

/* What a bucket of a histogram holds at most: AGE_BOUNDS and RECORD_BOUNDS in
   pykeyupdate/_stats.py.  One more bucket holds all that is above.
   23,726,566 records are what RFC 9846 allows AES-GCM. */
#define KU_AGE_BOUNDS(X) X(60) X(300) X(900) X(3600) X(14400) X(86400) X(604800)
#define KU_RECORD_BOUNDS(X) \
    X(100) X(1000) X(10000) X(100000) X(1000000) X(10000000) X(23726566)

/* clang-format on */

#define KU_AND_ONE(bound) +1
enum {
    KU_AGE_BUCKETS = 1 KU_AGE_BOUNDS(KU_AND_ONE),
    KU_RECORD_BUCKETS = 1 KU_RECORD_BOUNDS(KU_AND_ONE)
};
#undef KU_AND_ONE

/* The keys of one direction. */
struct ku_key_survey {
    ku_time oldest; /* its age; KU_NEVER if there is no key */
    uint64_t ages[KU_AGE_BUCKETS], records[KU_RECORD_BUCKETS];
};

struct ku_survey {
    ku_time now;
    struct ku_key_survey sent, received;
};

/* Look at all connections of the process that have keys.  Any thread may, with the GIL
   or without. */
void ku_survey(struct ku_survey *survey);

#endif
