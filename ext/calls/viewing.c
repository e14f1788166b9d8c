#include "calls/viewing.h"

#include <stddef.h>
#include <structmember.h>

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

/* --- View: what was seen of a connection ------------------------------------------ */

/* Most of what is seen of many connections is never asked for, so it is kept as it is, and
   becomes Python's objects on demand.  The garbage collector does not follow a View: its
   objects are strings, bytes and a weak reference, which lead nowhere.  If it did, 10,000
   that are made in a row would have it look through all of the program's objects, which
   takes longer than all the rest. */
typedef struct {
    PyObject_HEAD
    struct ku_view view;
    ku_time now;
    PyObject *kept_label, *kept_peer, *kept_name; /* of the connection */
    PyObject *reference;                          /* to it */
    PyObject *told;                               /* what has been made of all that */
} View;

static void
view_dealloc(PyObject *object)
{
    View *self = (View *)object;
    PyTypeObject *type = Py_TYPE(object);
    Py_XDECREF(self->kept_label);
    Py_XDECREF(self->kept_peer);
    Py_XDECREF(self->kept_name);
    Py_XDECREF(self->reference);
    Py_XDECREF(self->told);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

#define KU_KEPT(name, flags) {#name, T_OBJECT, offsetof(View, name), flags, NULL}
static PyMemberDef view_members[] = {
    KU_KEPT(kept_label, READONLY),
    KU_KEPT(kept_peer, READONLY),
    KU_KEPT(kept_name, READONLY),
    KU_KEPT(reference, READONLY),
    KU_KEPT(told, 0),
    {NULL, 0, 0, 0, NULL},
};
#undef KU_KEPT

static PyType_Slot view_slots[] = {
    {Py_tp_doc, "What was seen of a connection."},
    {Py_tp_dealloc, view_dealloc},
    {Py_tp_members, view_members},
    {0, NULL},
};

static PyType_Spec view_spec = {
    .name = "pykeyupdate._keyupdate.View",
    .basicsize = sizeof(View),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = view_slots,
};

PyObject *
ku_view_type(PyObject *module)
{
    return PyType_FromModuleAndSpec(module, &view_spec, NULL);
}

static PyObject *
new_reference(PyObject *object)
{
    Py_INCREF(object);
    return object;
}

/* The ledger lives as long as the _SSLSocket, to which the caller has a reference.  None
   of OpenSSL's functions that are called looks at what another thread may be changing. */
static PyObject *
py_view(PyObject *module, PyObject *args)
{
    const ku_state *state = PyModule_GetState(module);
    struct ku_tls tls = {0};
    PyTypeObject *cls;
    PyObject *sslobj, *label, *peer, *name, *reference;
    if (!PyArg_ParseTuple(args, "O!OOOOO:view", &PyType_Type, &cls, &sslobj, &label,
                          &peer, &name, &reference)) {
        return NULL;
    }
    if (Py_TYPE(sslobj) == state->duplex_type) {
        sslobj = ku_duplex_inner(sslobj);
    }
    if (!PyType_IsSubtype(cls, state->view_type) || sslobj == NULL
        || Py_TYPE(sslobj) != state->sslobject_type
        || !ku_ledger_tls(state, sslobj, &tls) || tls.ledger == NULL) {
        Py_RETURN_NONE;
    }
    View *seen = (View *)PyType_GenericAlloc(cls, 0);
    if (seen != NULL) {
        if (PyType_GetFlags(cls) & Py_TPFLAGS_HAVE_GC) {
            PyObject_GC_UnTrack(seen);
        }
        ku_ledger_view(tls.ledger, &seen->view);
        seen->now = ku_ledger_clock();
        seen->kept_label = new_reference(label);
        seen->kept_peer = new_reference(peer);
        seen->kept_name = new_reference(name);
        seen->reference = new_reference(reference);
    }
    return (PyObject *)seen;
}

/* Returns a new tuple, or NULL with an exception. */
static PyObject *
py_values(PyObject *module, PyObject *object)
{
    const ku_state *state = PyModule_GetState(module);
    if (!PyType_IsSubtype(Py_TYPE(object), state->view_type)) {
        PyErr_SetString(PyExc_TypeError, "values() takes a View");
        return NULL;
    }
    const struct ku_view *view = &((View *)object)->view;
    ku_time now = ((View *)object)->now;
    const char *cipher = view->facts.cipher != NULL
                             ? state->libssl.SSL_CIPHER_get_name(view->facts.cipher)
                             : NULL;
    return Py_BuildValue(
        "KOizNNNdOON", (unsigned long long)view->number, flag(view->facts.is_server),
        view->facts.version, cipher, keys_tuple(view, &view->sent, now),
        keys_tuple(view, &view->received, now), counts_tuple(view),
        view->connected ? seconds_between(view->last_data, now) : 0.0,
        flag(view->answer_owed), flag(view->request_outstanding), obstacle(view));
}

/* --- all of them ------------------------------------------------------------------ */

static PyObject *
py_watch(PyObject *module, PyObject *ignored)
{
    (void)module, (void)ignored;
    ku_ledger_watch();
    Py_RETURN_NONE;
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
    {"watch", py_watch, METH_NOARGS,
     "watch()\n--\n\nNote from now on when data goes or comes."},
    {"view", py_view, METH_VARARGS,
     "view(cls, sslobj, label, peer, name, reference, /)\n--\n\n"
     "Make a snapshot, of class cls; None: not managed."},
    {"values", py_values, METH_O,
     "values(view, /)\n--\n\nWhat a ConnectionInfo is made of."},
    {"survey", py_survey, METH_NOARGS,
     "survey()\n--\n\nWhat totals() says of the present keys."},
    {NULL, NULL, 0, NULL},
};
