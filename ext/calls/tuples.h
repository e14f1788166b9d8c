/* The tuples in which numbers of a ledger go to Python (pykeyupdate/_stats.py).  All
   return a new reference, or NULL with an exception. */
#ifndef PYKEYUPDATE_TUPLES_H
#define PYKEYUPDATE_TUPLES_H

#include "keys/ledger.h"

#include <Python.h>

#define KU_NUMBERS(array)                                                              \
    ku_numbers_tuple(array, (int)(sizeof(array) / sizeof(*(array))))

PyObject *ku_numbers_tuple(const uint64_t *numbers, int count);

/* The fields of Counts. */
PyObject *ku_counts_tuple(const uint32_t counts[KU_COUNT_END]);

/* The fields of KeyUse.  Before the first handshake is complete (`connected`) the age
   is 0. */
PyObject *ku_keys_tuple(const struct ku_keys *keys, int connected, ku_time now);

double ku_seconds_between(ku_time then, ku_time now);

#endif
