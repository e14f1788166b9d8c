#include "calls/viewing.h"

#include "keys/survey.h"
#include "openssl/sslobject.h"
#include "streams/duplex.h"

#define KU_NUMBERS(array) numbers_tuple(array, (int)(sizeof(array) / sizeof(*(array))))

static PyObject *
numbers_tuple(const uint64_t *numbers, int count)
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

static double
seconds_between(ku_time then, ku_time now)
{
    return now > then ? (double)(now - then) / 1e6 : 0.0;
}

/* A borrowed reference. */
static PyObject *
flag(int value)
{
    return value ? Py_True : Py_False;
}

static PyObject *
limit_or_none(uint64_t limit)
{
    if (limit == KU_NO_LIMIT) {
        Py_RETURN_NONE;
    }
    return PyLong_FromUnsignedLongLong(limit);
}

/* The fields of KeyUse. */
static PyObject *
keys_tuple(const struct ku_view *view, const struct ku_keys *keys, ku_time now)
{
    double age = view->connected ? seconds_between(keys->since, now) : 0.0;
    return Py_BuildValue(
        "KKdNN", (unsigned long long)keys->records, (unsigned long long)keys->bytes,
        age, limit_or_none(keys->max_records), limit_or_none(keys->max_bytes));
}

static PyObject *
counts_tuple(const struct ku_view *view)
{
    uint64_t counts[KU_COUNT_END];
    for (int i = 0; i < KU_COUNT_END; i++) {
        counts[i] = view->counts[i];
    }
    return KU_NUMBERS(counts);
}

/* None, or what keeps the connection from having new keys. */
static PyObject *
obstacle(const struct ku_view *view)
{
    if (view->can_renew && !view->inherited && view->why_cut == NULL) {
        Py_RETURN_NONE;
    }
    return Py_BuildValue("OOz", flag(view->connected), flag(view->inherited),
                         view->why_cut);
}

static PyObject *
view_tuple(const ku_state *state, const struct ku_view *view)
{
    ku_time now = ku_ledger_clock();
    const char *cipher = view->facts.cipher != NULL
                             ? state->libssl.SSL_CIPHER_get_name(view->facts.cipher)
                             : NULL;
    return Py_BuildValue(
        "KizNNNdOON", (unsigned long long)view->number, view->facts.version, cipher,
        keys_tuple(view, &view->sent, now), keys_tuple(view, &view->received, now),
        counts_tuple(view),
        view->connected ? seconds_between(view->last_data, now) : 0.0,
        flag(view->answer_owed), flag(view->request_outstanding), obstacle(view));
}

/* The ledger lives as long as the _SSLSocket, to which the caller has a reference.  None of
   OpenSSL's functions that are called looks at what another thread may be changing. */
static PyObject *
py_view(PyObject *module, PyObject *sslobj)
{
    const ku_state *state = PyModule_GetState(module);
    struct ku_tls tls = {0};
    if (Py_TYPE(sslobj) == state->duplex_type) {
        sslobj = ku_duplex_inner(sslobj);
    }
    if (sslobj == NULL || Py_TYPE(sslobj) != state->sslobject_type
        || !ku_ledger_tls(state, sslobj, &tls) || tls.ledger == NULL) {
        Py_RETURN_NONE;
    }
    struct ku_view view;
    ku_ledger_view(tls.ledger, &view);
    return view_tuple(state, &view);
}

static PyObject *
survey_tuple(const struct ku_key_survey *survey)
{
    return Py_BuildValue("dNN", (double)survey->oldest / 1e6, KU_NUMBERS(survey->ages),
                         KU_NUMBERS(survey->records));
}

static PyObject *
py_survey(PyObject *module, PyObject *ignored)
{
    (void)module, (void)ignored;
    struct ku_survey survey;
    Py_BEGIN_ALLOW_THREADS
    ku_survey(&survey);
    Py_END_ALLOW_THREADS
    return Py_BuildValue("NN", survey_tuple(&survey.sent),
                         survey_tuple(&survey.received));
}

PyMethodDef ku_viewing[] = {
    {"view", py_view, METH_O,
     "view(sslobj, /)\n--\n\nWhat connections() is made of; None: not managed."},
    {"survey", py_survey, METH_NOARGS,
     "survey()\n--\n\nWhat totals() says of the present keys."},
    {NULL, NULL, 0, NULL},
};
