#include "calls/managed.h"

#include "calls/step.h"
#include "calls/tuples.h"
#include "keys/key_clock.h"
#include "keys/ledgers.h"
#include "keys/notes.h"
#include "keys/opening.h"
#include "keys/peer_limits.h"
#include "keys/reports.h"
#include "keys/telling.h"
#include "keys/wishes.h"
#include "openssl/questions.h"
#include "openssl/sslobject.h"
#include "streams/callbacks.h"

static void
take_NUMBER64(PyObject *number, uint64_t *rule)
{
    *rule = PyLong_AsUnsignedLongLong(number);
}

static void
take_TIME(PyObject *number, ku_time *rule)
{
    *rule = PyLong_AsLongLong(number);
}

static void
take_NUMBER32(PyObject *number, uint32_t *rule)
{
    *rule = (uint32_t)PyLong_AsUnsignedLong(number);
}

static void
take_FRACTION(PyObject *number, float *rule)
{
    *rule = (float)PyFloat_AsDouble(number);
}

static void
take_BYTE(PyObject *number, unsigned char *rule)
{
    *rule = (unsigned char)PyLong_AsLong(number);
}

/* Read the rules from the dict that _numbers() in pykeyupdate/_policy.py makes, by their
   names.  Returns 0, or -1 with an exception. */
static int
parse_rules(PyObject *numbers, struct ku_rules *rules)
{
#define KU_TAKE(kind, name)                                                            \
    PyObject *name = PyDict_GetItemString(numbers, #name);                             \
    if (name == NULL) {                                                                \
        PyErr_SetString(PyExc_KeyError, #name);                                        \
        return -1;                                                                     \
    }                                                                                  \
    take_##kind(name, &rules->name);
    KU_RULES(KU_TAKE)
#undef KU_TAKE
    return PyErr_Occurred() ? -1 : 0;
}

static PyObject *
py_open_ledger(PyObject *module, PyObject *args)
{
    PyObject *inner, *numbers;
    struct ku_rules rules = {0};
    ku_state *state = PyModule_GetState(module);
    if (!PyArg_ParseTuple(args, "OO!:open_ledger", &inner, &PyDict_Type, &numbers)
        || parse_rules(numbers, &rules) < 0) {
        return NULL;
    }
    SSL *ssl =
        Py_TYPE(inner) == state->sslobject_type ? ku_sslobject_ssl(state, inner) : NULL;
    if (ssl == NULL || ku_ledger_of(ssl) != NULL
        || state->libssl.SSL_is_init_finished(ssl)) {
        PyErr_SetString(PyExc_ValueError, "open_ledger() takes a new connection");
        return NULL;
    }
    int has_callbacks = ku_has_callbacks(inner);
    if (has_callbacks < 0) {
        return NULL;
    }
    struct ku_ledger *ledger = ku_ledger_open(ssl, &rules);
    if (ledger == NULL) {
        return PyErr_NoMemory();
    }
    ledger->has_callbacks = (unsigned char)has_callbacks;
    ku_start_reports(
        &(struct ku_tls){.libssl = &state->libssl, .ssl = ssl, .ledger = ledger});
    Py_RETURN_NONE;
}

static struct ku_outcome
want_step(const struct ku_tls *tls)
{
    struct ku_ledger *ledger = tls->ledger;
    if (ledger == NULL) {
        return ku_refused(KU_UNMANAGED);
    }
    if (tls->argument & KU_UNLESS_INHERITED && ledger->inherited) {
        return ku_refused(KU_FORKED);
    }
    ku_want_keys(ledger, (long)(tls->argument & ~KU_UNLESS_INHERITED));
    return ku_ok(0);
}

static struct ku_outcome
allow_step(const struct ku_tls *tls)
{
    struct ku_ledger *ledger = tls->ledger;
    if (ledger == NULL) {
        return ku_refused(KU_UNMANAGED);
    }
    ku_allow_renegotiation(tls, (int)tls->argument);
    return ku_ok(0);
}

/* Make a close_notify.  OpenSSL sends nothing after it. */
static struct ku_outcome
close_notify_step(const struct ku_tls *tls)
{
    tls->libssl->ERR_clear_error();
    (void)tls->libssl->SSL_shutdown(tls->ssl);
    tls->libssl->ERR_clear_error();
    return ku_ok(0);
}

static PyObject *
look_with_number(PyObject *module, PyObject *args, ku_step step)
{
    PyObject *conn;
    const char *function;
    int number, value;
    if (!PyArg_ParseTuple(args, "Osi", &conn, &function, &number)
        || ku_take_step_anytime(PyModule_GetState(module), function, conn, step, number,
                                &value)
               < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
py_want(PyObject *module, PyObject *args)
{
    return look_with_number(module, args, want_step);
}

static PyObject *
py_allow(PyObject *module, PyObject *args)
{
    return look_with_number(module, args, allow_step);
}

static PyObject *
py_close_notify(PyObject *module, PyObject *args)
{
    PyObject *conn;
    const char *function;
    int value;
    if (!PyArg_ParseTuple(args, "Os", &conn, &function)
        || ku_take_step(PyModule_GetState(module), function, conn, close_notify_step, 0,
                        &value)
               < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
py_want_all(PyObject *module, PyObject *args)
{
    (void)module;
    unsigned long long last;
    Py_ssize_t most;
    int wanted;
    if (!PyArg_ParseTuple(args, "Kni:want_all", &last, &most, &wanted)) {
        return NULL;
    }
    uint64_t number = last;
    size_t count = ku_ledgers_want_keys(&number, most > 0 ? (size_t)most : 0, wanted);
    return Py_BuildValue("Kn", (unsigned long long)number, (Py_ssize_t)count);
}

/* Copy the ledger while the connection is locked.  The value is 1 if we owe an
   answer. */
static struct ku_outcome
copy_step(const struct ku_tls *tls)
{
    struct ku_ledger *ledger = tls->ledger;
    if (ledger == NULL) {
        return ku_refused(KU_UNMANAGED);
    }
    *(struct ku_ledger *)tls->argument = *ledger;
    return ku_ok(ku_is_tls13(tls) && tls->libssl->SSL_is_init_finished(tls->ssl)
                 && ku_pending_key_update(tls) != SSL_KEY_UPDATE_NONE);
}

static PyObject *
py_totals(PyObject *module, PyObject *ignored)
{
    (void)module, (void)ignored;
    uint64_t counts[KU_COUNT_END], open, opened;
    ku_ledgers_totals(counts, &open, &opened);
    return Py_BuildValue("NKK", KU_NUMBERS(counts), (unsigned long long)open,
                         (unsigned long long)opened);
}

static PyObject *
py_reasons(PyObject *module, PyObject *ignored)
{
    (void)module, (void)ignored;
    struct ku_reasons reasons;
    ku_ledgers_reasons(&reasons);
    return Py_BuildValue("NNN", KU_NUMBERS(reasons.changes), KU_NUMBERS(reasons.causes),
                         KU_NUMBERS(reasons.limits));
}

/* A managed SSLObject whose transport has dropped it: without a close_notify, the
   transport has lost the connection, and does not say how. */
static PyObject *
py_lost(PyObject *module, PyObject *args)
{
    PyObject *conn, *inner;
    ku_state *state = PyModule_GetState(module);
    struct ku_tls tls;
    struct ku_report report = {0};
    if (!PyArg_ParseTuple(args, "OO:lost", &conn, &inner)) {
        return NULL;
    }
    if (Py_TYPE(inner) == state->sslobject_type && ku_ledger_tls(state, inner, &tls)
        && tls.ledger != NULL && tls.ledger->unheard) {
        ku_ledger_note_end(tls.ledger, 1);
        ku_collect_events(inner, tls.ledger, &report);
    }
    if (ku_tell_events(state, conn, &report) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
py_put_forward(PyObject *module, PyObject *seconds)
{
    (void)module;
    long number = PyLong_AsLong(seconds);
    if (number == -1 && PyErr_Occurred()) {
        return NULL;
    }
    ku_advance_key_clock((ku_time)number * 1000000);
    Py_RETURN_NONE;
}

static PyObject *
py_usage(PyObject *module, PyObject *conn)
{
    struct ku_ledger ledger;
    int owed;
    if (ku_take_step_anytime(PyModule_GetState(module), "stats", conn, copy_step,
                             (intptr_t)&ledger, &owed)
        < 0) {
        return NULL;
    }
    ku_time now = ku_key_clock();
    return Py_BuildValue("NNNiisz", ku_counts_tuple(ledger.counts),
                         ku_keys_tuple(&ledger.sent, ledger.connected, now),
                         ku_keys_tuple(&ledger.received, ledger.connected, now), owed,
                         ledger.request_outstanding,
                         ku_change_names[ledger.why_changed], ledger.why_cut);
}

PyMethodDef ku_managed[] = {
    {"open_ledger", py_open_ledger, METH_VARARGS,
     "open_ledger(sslobj, rules, /)\n--\n\nOpen the ledger of a new connection."},
    {"want", py_want, METH_VARARGS,
     "want(conn, function, wanted, /)\n--\n\nHave the next I/O get new keys."},
    {"want_all", py_want_all, METH_VARARGS,
     "want_all(last, most, wanted, /)\n--\n\n"
     "The same for the next connections after number `last`."},
    {"allow", py_allow, METH_VARARGS,
     "allow(conn, function, change, /)\n--\n\nLet the peer renegotiate."},
    {"close_notify", py_close_notify, METH_VARARGS,
     "close_notify(conn, function, /)\n--\n\nMake a close_notify alert."},
    {"usage", py_usage, METH_O, "usage(conn, /)\n--\n\nWhat stats() is made of."},
    {"totals", py_totals, METH_NOARGS, "totals()\n--\n\nWhat totals() is made of."},
    {"reasons", py_reasons, METH_NOARGS,
     "reasons()\n--\n\nHow often keys were changed, could not be, and peers were cut "
     "off,\nby reason."},
    {"lost", py_lost, METH_VARARGS,
     "lost(conn, sslobj, /)\n--\n\nNote that a transport has dropped an SSLObject."},
    {"put_forward", py_put_forward, METH_O,
     "put_forward(seconds, /)\n--\n\nPut the clock of ages and windows forward."},
    {NULL, NULL, 0, NULL},
};
