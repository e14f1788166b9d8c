#include "calls/viewing.h"

#include "calls/tuples.h"
#include "keys/key_clock.h"
#include "keys/ledgers.h"
#include "keys/opening.h"
#include "keys/survey.h"
#include "openssl/sslobject.h"
#include "streams/duplex.h"

#include <stddef.h>
#include <structmember.h>

/* A borrowed reference. */
static PyObject *
flag(int value)
{
    return value ? Py_True : Py_False;
}

/* Fill in `tls` for a managed connection: the ssl module's object, or a Duplex around it.
   Returns 0 for other objects. */
static int
find_ledger(const ku_state *state, PyObject *sslobj, struct ku_tls *tls)
{
    PyObject *inner =
        Py_TYPE(sslobj) == state->duplex_type ? ku_duplex_inner(sslobj) : sslobj;
    return inner != NULL && Py_TYPE(inner) == state->sslobject_type
           && ku_ledger_tls(state, inner, tls) && tls->ledger != NULL;
}

static const char *
cipher_name(const struct ku_libssl *libssl, const struct ku_facts *facts)
{
    return facts->cipher != NULL ? libssl->SSL_CIPHER_get_name(facts->cipher) : NULL;
}

/* What a managed connection's repr() names: a new tuple of whether this side is the
   server, the version's number, and the cipher's name or None.  None for other objects.
   Neither a step nor a callback of the connection delays it. */
static PyObject *
py_facts(PyObject *module, PyObject *sslobj)
{
    struct ku_tls tls;
    if (!find_ledger(PyModule_GetState(module), sslobj, &tls)) {
        Py_RETURN_NONE;
    }
    struct ku_facts facts = ku_ledger_facts(tls.ledger);
    return Py_BuildValue("(Oiz)", flag(facts.is_server), facts.version,
                         cipher_name(tls.libssl, &facts));
}

/* None, or what keeps the connection from having new keys. */
static PyObject *
obstacle(const struct ku_view *view)
{
    if (view->obstacle == KU_CAUSE_END && !view->inherited && view->why_cut == NULL) {
        Py_RETURN_NONE;
    }
    return Py_BuildValue("Ozz", flag(view->inherited), ku_cause_names[view->obstacle],
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
    if (!PyType_IsSubtype(cls, state->view_type) || !find_ledger(state, sslobj, &tls)) {
        Py_RETURN_NONE;
    }
    View *seen = (View *)PyType_GenericAlloc(cls, 0);
    if (seen != NULL) {
        if (PyType_GetFlags(cls) & Py_TPFLAGS_HAVE_GC) {
            PyObject_GC_UnTrack(seen);
        }
        ku_ledger_view(tls.ledger, &seen->view);
        seen->now = ku_key_clock();
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
    return Py_BuildValue(
        "KOizNNNdOON", (unsigned long long)view->number, flag(view->facts.is_server),
        view->facts.version, cipher_name(&state->libssl, &view->facts),
        ku_keys_tuple(&view->sent, view->connected, now),
        ku_keys_tuple(&view->received, view->connected, now),
        ku_counts_tuple(view->counts),
        view->connected ? ku_seconds_between(view->last_data, now) : 0.0,
        flag(view->answer_owed), flag(view->request_outstanding), obstacle(view));
}

/* --- all of them ------------------------------------------------------------------ */

static PyObject *
py_watch(PyObject *module, PyObject *ignored)
{
    (void)module, (void)ignored;
    ku_ledgers_watch();
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
    {"facts", py_facts, METH_O,
     "facts(sslobj, /)\n--\n\nWhat a connection's repr() names, or None."},
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
