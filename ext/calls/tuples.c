#include "calls/tuples.h"

PyObject *
ku_numbers_tuple(const uint64_t *numbers, int count)
{
    PyObject *tuple = PyTuple_New(count);
    for (int i = 0; tuple != NULL && i < count; i++) {
        PyObject *number = PyLong_FromUnsignedLongLong(numbers[i]);
        if (number == NULL || PyTuple_SetItem(tuple, i, number) < 0) {
            Py_CLEAR(tuple);
        }
    }
    return tuple;
}

PyObject *
ku_counts_tuple(const uint32_t counts[KU_COUNT_END])
{
    uint64_t numbers[KU_COUNT_END];
    for (int i = 0; i < KU_COUNT_END; i++) {
        numbers[i] = counts[i];
    }
    return KU_NUMBERS(numbers);
}

double
ku_seconds_between(ku_time then, ku_time now)
{
    return now > then ? (double)(now - then) / 1e6 : 0.0;
}

static PyObject *
limit_or_none(uint64_t limit)
{
    if (limit == KU_NO_LIMIT) {
        Py_RETURN_NONE;
    }
    return PyLong_FromUnsignedLongLong(limit);
}

PyObject *
ku_keys_tuple(const struct ku_keys *keys, int connected, ku_time now)
{
    double age = connected ? ku_seconds_between(keys->since, now) : 0.0;
    return Py_BuildValue(
        "KKdNN", (unsigned long long)keys->records, (unsigned long long)keys->bytes,
        age, limit_or_none(keys->max_records), limit_or_none(keys->max_bytes));
}
