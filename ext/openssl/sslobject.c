/* The one unsafe cast, and its proof.

   After PyObject_HEAD, Modules/_ssl.c defines these members, the same in every CPython
   from 3.7 to 3.15 (3.9.2:459, 3.10:308, 3.11.2:306, 3.12.7:309, 3.13.15:320; only what
   follows server_hostname changes from version to version):

       PyObject *Socket;           weakref to the socket, NULL over memory BIOs
       SSL *ssl;
       PySSLContext *ctx;
       char shutdown_seen_zero;
       enum py_ssl_server_or_client socket_type;
       PyObject *owner;            weakref to the owner, or NULL
       PyObject *server_hostname;

   The header's size is not the sizeof(PyObject) that we were compiled with.  We ask the
   running interpreter (object.__basicsize__): the header is larger in free-threaded and
   trace-refs builds.

   The proof has two halves.  At import, we compare words of a connection of our own
   making, and follow none: both neighbours of `ssl`, the socket type and the host name
   must be where we expect them.  At every call, we ask OpenSSL itself: _ssl stores the
   object in the SSL (SSL_set_app_data, which is ex_data 0), so SSL_get_ex_data(ssl, 0)
   must return the object that we started from.  That proves pointer and library
   together. */
#include "openssl/sslobject.h"

#include "openssl/constants.h"

#include <stdint.h>

struct sslsocket_prefix {
    PyObject *socket;
    SSL *ssl;
    PyObject *ctx;
    char shutdown_seen_zero;
    int socket_type;
    PyObject *owner;
    PyObject *server_hostname;
};

static const struct sslsocket_prefix *
prefix_of(const ku_state *state, PyObject *sslobj)
{
    return (const struct sslsocket_prefix *)((const char *)sslobj + state->head);
}

/* Does this word point to the very object that `object.attribute` is? */
static int
is_attribute(PyObject *object, const char *attribute, PyObject *word)
{
    PyObject *value = PyObject_GetAttrString(object, attribute);
    int same = value != NULL && value == word;
    PyErr_Clear();
    Py_XDECREF(value);
    return same;
}

static int
layout_holds(const ku_state *state, PyObject *sslobj)
{
    const struct sslsocket_prefix *prefix = prefix_of(state, sslobj);
    return prefix->socket == NULL && prefix->ssl != NULL
           && (uintptr_t)prefix->ssl % sizeof(void *) == 0
           && is_attribute(sslobj, "context", prefix->ctx)
           && prefix->shutdown_seen_zero == 0
           && prefix->socket_type == 0 /* PY_SSL_CLIENT */
           && prefix->owner == NULL
           && is_attribute(sslobj, "server_hostname", prefix->server_hostname);
}

/* The size of an instance of this type, as Python itself knows it, or -1 on failure. */
static Py_ssize_t
basic_size(PyObject *type)
{
    PyObject *size = PyObject_GetAttrString(type, "__basicsize__");
    Py_ssize_t result = size != NULL ? PyLong_AsSsize_t(size) : -1;
    Py_XDECREF(size);
    return result;
}

/* A client over memory BIOs, made by _ssl's own classes.  ssl's Python layer may be
   patched by now, and needs more than we do.  A new reference, or NULL with an
   exception. */
static PyObject *
make_connection(PyObject *_ssl)
{
    PyObject *connection = NULL, *incoming = NULL, *outgoing = NULL;
    PyObject *context =
        PyObject_CallMethod(_ssl, "_SSLContext", "i", PY_PROTOCOL_TLS_CLIENT);
    if (context != NULL) {
        incoming = PyObject_CallMethod(_ssl, "MemoryBIO", NULL);
        outgoing = PyObject_CallMethod(_ssl, "MemoryBIO", NULL);
    }
    if (incoming != NULL && outgoing != NULL) {
        connection = PyObject_CallMethod(context, "_wrap_bio", "OOOs", incoming,
                                         outgoing, Py_False, "pykeyupdate.invalid");
    }
    Py_XDECREF(incoming);
    Py_XDECREF(outgoing);
    Py_XDECREF(context);
    return connection;
}

/* Raise ImportError in place of the current exception: this _ssl is of another make, or
   OpenSSL's configuration is broken.  MemoryError stays.  Always returns NULL. */
static PyObject *
cannot_make_connection(void)
{
    PyObject *type, *value, *traceback;
    if (PyErr_ExceptionMatches(PyExc_Exception)
        && !PyErr_ExceptionMatches(PyExc_MemoryError)) {
        PyErr_Fetch(&type, &value, &traceback);
        PyErr_NormalizeException(&type, &value, &traceback);
        PyErr_Format(PyExc_ImportError,
                     "pykeyupdate cannot work here: this Python's ssl module "
                     "cannot make a connection (%S). (In the sources: "
                     "ext/openssl/sslobject.c, make_connection().)",
                     value);
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(traceback);
    }
    return NULL;
}

PyObject *
ku_sslobject_probe(ku_state *state, PyObject *_ssl)
{
    PyObject *type = PyObject_GetAttrString(_ssl, "_SSLSocket");
    PyObject *probe = type != NULL ? make_connection(_ssl) : NULL;
    if (probe == NULL) {
        Py_XDECREF(type);
        return cannot_make_connection();
    }
    state->head = basic_size((PyObject *)&PyBaseObject_Type);
    Py_ssize_t size = basic_size(type);
    if (!PyType_Check(type) || (PyObject *)Py_TYPE(probe) != type || state->head < 0
        || size < state->head + (Py_ssize_t)sizeof(struct sslsocket_prefix)
        || !layout_holds(state, probe)) {
        PyErr_SetString(
            PyExc_ImportError,
            "pykeyupdate cannot work here: a connection of this Python's ssl "
            "module is not laid out in memory as in CPython 3.9 to 3.15, so "
            "OpenSSL's pointer cannot be taken from it safely. Look for a newer "
            "pykeyupdate, or report it with the output of "
            "`python -m pykeyupdate doctor`. (In the sources: "
            "ext/openssl/sslobject.c, struct sslsocket_prefix.)");
        Py_DECREF(type);
        Py_DECREF(probe);
        return NULL;
    }
    state->sslobject_type = (PyTypeObject *)type;
    return probe;
}

/* Whether an object is of a class of ssl's, or of one derived from it. */
static int
is_of_ssl(const ku_state *state, PyObject *object)
{
    return PyType_IsSubtype(Py_TYPE(object), state->socket_type)
           || PyType_IsSubtype(Py_TYPE(object), state->object_type);
}

PyObject *
ku_own_attribute(ku_state *state, PyObject *object, PyObject *name)
{
    if (!is_of_ssl(state, object)) {
        return PyObject_CallFunctionObjArgs(state->stored, object, name, NULL);
    }
    PyObject *value = PyObject_GenericGetAttr(object, name);
    if (value == NULL && PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear();
        Py_RETURN_NOTIMPLEMENTED;
    }
    return value;
}

/* Only the exact types: they are final, and only they have the layout proved above (or
   hold an object that has it). */
static int
is_inner(const ku_state *state, PyObject *object)
{
    return Py_TYPE(object) == state->sslobject_type
           || Py_TYPE(object) == state->duplex_type;
}

PyObject *
ku_sslobject_inside(ku_state *state, PyObject *conn)
{
    if (is_inner(state, conn)) {
        Py_INCREF(conn);
        return conn;
    }
    PyObject *inner = ku_own_attribute(state, conn, state->sslobj_name);
    if (inner == NULL || inner == Py_None || is_inner(state, inner)) {
        return inner;
    }
    Py_DECREF(inner);
    Py_RETURN_NOTIMPLEMENTED;
}

PyObject *
ku_sslobject_search(ku_state *state, const char *function, PyObject *conn,
                    PyObject **holder)
{
    PyObject *inner = ku_sslobject_inside(state, conn);
    if (inner != Py_NotImplemented) {
        Py_INCREF(conn);
        *holder = conn;
        return inner;
    }
    Py_DECREF(inner);
    PyObject *found =
        PyObject_CallFunction(state->find_connection, "Os", conn, function);
    *holder = found != NULL ? PyObject_GetAttrString(found, "tls") : NULL;
    Py_XDECREF(found);
    return *holder != NULL ? ku_sslobject_inside(state, *holder) : NULL;
}

int
ku_sslobject_is_bio(const ku_state *state, PyObject *sslobj)
{
    return prefix_of(state, sslobj)->socket == NULL;
}

SSL *
ku_sslobject_ssl(const ku_state *state, PyObject *sslobj)
{
    const struct sslsocket_prefix *prefix = prefix_of(state, sslobj);
    /* An _ssl._SSLSocket() made by hand (possible up to 3.13.0) holds only NULLs. */
    if (prefix->ssl == NULL || prefix->ctx == NULL
        || state->libssl.SSL_get_ex_data(prefix->ssl, 0) != (void *)sslobj) {
        return NULL;
    }
    return prefix->ssl;
}
