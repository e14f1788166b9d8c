/* Refusals as exceptions of pykeyupdate.errors.

   The class says what a program does about it (not now / never); the message
   says what a person does: which call, on which connection, why, and the remedy.
   OpenSSL's own refusals look as _ssl's: args (reason code, text), .library,
   .reason (_ssl.c, fill_and_set_sslerror). */
#include "errors.h"

#include <string.h>

/* Reason codes of OpenSSL's SSL library, the same from 1.1.1 to 4.0. */
#define ERR_LIB_SSL 20
#define SSL_R_INVALID_KEY_UPDATE_TYPE 120
#define SSL_R_WRONG_SSL_VERSION 266
#define SSL_R_UNINITIALIZED 276
#define SSL_R_NO_RENEGOTIATION 339

static const struct {
    const char *exception;
    const char *text;
} REFUSALS[] = {
    [KU_NO_POINTER] = {
        "NotATLSConnectionError",
        "this ssl object holds no connection of this interpreter's ssl module; "
        "get connections from SSLContext.wrap_socket() or wrap_bio()"},
    [KU_CLOSED] = {
        "ConnectionClosedError",
        "the connection is closed or unwrapped; open a new one"},
    [KU_FAILED] = {
        "ConnectionFailedError",
        "a fatal TLS error ended this connection; close it and open a new one"},
    [KU_CLOSE_SENT] = {
        "CloseNotifyError",
        "close_notify has been sent and nothing may follow it; finish unwrap() "
        "and open a new connection"},
    [KU_CLOSE_RECEIVED] = {
        "CloseNotifyError",
        "the peer has sent close_notify and will not renegotiate; finish "
        "unwrap() and open a new connection"},
    [KU_NEEDS_TLS13] = {
        "WrongProtocolVersionError",
        "key update exists in TLS 1.3 only and this connection is %s; "
        "use renegotiate()"},
    [KU_NEEDS_TLS12] = {
        "WrongProtocolVersionError",
        "renegotiation exists up to TLS 1.2 only and this connection is %s; "
        "use key_update()"},
    [KU_FORBIDDEN] = {
        "RenegotiationForbiddenError",
        "OP_NO_RENEGOTIATION is set (kernel TLS sets it too); clear it in the "
        "context's options before connecting"},
    [KU_INSECURE] = {
        "InsecureRenegotiationError",
        "the peer does not support secure renegotiation (RFC 5746); open a new "
        "connection to get new keys"},
    [KU_KERNEL_TLS] = {
        "KernelTLSError",
        "the kernel holds this connection's keys (OP_ENABLE_KTLS) and this "
        "OpenSSL with this kernel cannot change them; connect without "
        "OP_ENABLE_KTLS"},
    [KU_MISSING] = {
        "UnsupportedByLibraryError",
        "the TLS library of this interpreter's ssl module has no %s(); see "
        "`python -m pykeyupdate doctor`"},
    [KU_NO_HANDSHAKE] = {
        "HandshakeNotDoneError",
        "handshake not done yet; complete do_handshake() first"},
    [KU_SCHEDULED] = {
        "AlreadyPendingError",
        "a key update is scheduled and not yet sent; do_handshake() or the next "
        "send or recv sends it"},
    [KU_ANSWER_OWED] = {
        "AlreadyPendingError",
        "the peer has asked for a key update and its answer comes first; send "
        "something, or call key_update(NOT_REQUESTED) and do_handshake()"},
    [KU_IN_MESSAGE] = {
        "AlreadyPendingError",
        "a post-handshake message is on its way in or out; do_handshake(), or "
        "recv() until it is through"},
    [KU_RENEGOTIATING] = {
        "AlreadyPendingError",
        "a renegotiation is pending; recv() drives it to its end, and "
        "renegotiate_pending() then says False"},
    [KU_WRITE_PENDING] = {
        "WritePendingError",
        "a write is half-way (SSLWantWriteError); repeat that same write until "
        "it is complete"},
    [KU_READ_PENDING] = {
        "ReadPendingError",
        "received data is waiting, and a client that renegotiates over it may "
        "lose the connection; recv() it first"},
    [KU_READ_PENDING_OLD] = {
        "ReadPendingError",
        "received data is waiting, and OpenSSL before 1.1.1l cannot change keys "
        "with a record half read; recv() it first"},
};

/* At shutdown module_clear() takes the module away, and Python sets the names in
   a module to None while it is still there. */
static PyObject *
exception_class(ku_state *state, const char *name)
{
    PyObject *class = NULL;
    if (state->errors != NULL) {
        class = PyObject_GetAttrString(state->errors, name);
        if (class == NULL || PyExceptionClass_Check(class)) {
            return class;
        }
        Py_DECREF(class);
    }
    PyErr_SetString(PyExc_RuntimeError,
                    "pykeyupdate: the interpreter is shutting down");
    return NULL;
}

static PyObject *
raise(ku_state *state, const char *class_name, PyObject *message)
{
    PyObject *class = message ? exception_class(state, class_name) : NULL;
    if (class != NULL) {
        PyErr_SetObject(class, message);
    }
    Py_XDECREF(class);
    Py_XDECREF(message);
    return NULL;
}

/* repr(object), whatever a class of the user's makes of it. */
static PyObject *
name_of(PyObject *object)
{
    PyObject *name = PyObject_Repr(object);
    if (name == NULL && PyErr_ExceptionMatches(PyExc_Exception)) {
        PyErr_Clear();
        name = PyUnicode_FromString("<object without a repr>");
    }
    return name;
}

static PyObject *
raise_not_tls(ku_state *state, const char *function, PyObject *conn)
{
    PyObject *type = name_of((PyObject *)Py_TYPE(conn));
    if (type == NULL) {
        return NULL;
    }
    PyObject *message = PyUnicode_FromFormat(
        "%s() takes a connection of Python's ssl module (ssl.SSLSocket or "
        "ssl.SSLObject), not %U", function, type);
    Py_DECREF(type);
    return raise(state, "NotATLSConnectionError", message);
}

/* OpenSSL's text as _ssl spells it in .reason: "wrong ssl version" ->
   "WRONG_SSL_VERSION".  None where OpenSSL has no text. */
static PyObject *
reason_name(const char *text)
{
    char name[128];
    size_t length = text != NULL ? strlen(text) : 0;
    if (length == 0 || length >= sizeof(name)) {
        Py_RETURN_NONE;
    }
    for (size_t i = 0; i <= length; i++) {
        name[i] = text[i] == ' ' ? '_' : (char)Py_TOUPPER(Py_CHARMASK(text[i]));
    }
    return PyUnicode_FromString(name);
}

/* ERR_GET_LIB() is a macro and moved by a bit in OpenSSL 3.0. */
static int
library_number(const struct ku_libssl *libssl, unsigned long error)
{
    return (int)(error >> (libssl->version >= 0x30000000UL ? 23 : 24) & 0xff);
}

static PyObject *
library_name(const struct ku_libssl *libssl, unsigned long error)
{
    if (library_number(libssl, error) == ERR_LIB_SSL) {
        return PyUnicode_FromString("SSL");
    }
    return reason_name(libssl->ERR_lib_error_string(error));
}

/* Is OpenSSL's refusal for good?  What is not known to be counts as "not now":
   a limit that OpenSSL adds one day (a minimum interval between key updates is
   proposed) must not make anybody close a connection that is fine. */
static int
is_permanent(int reason)
{
    return reason == SSL_R_WRONG_SSL_VERSION || reason == SSL_R_NO_RENEGOTIATION
           || reason == SSL_R_INVALID_KEY_UPDATE_TYPE
           || reason == SSL_R_UNINITIALIZED || reason == 0;
}

static PyObject *
raise_openssl(ku_state *state, unsigned long error, const char *function,
              PyObject *conn_name)
{
    const struct ku_libssl *libssl = &state->libssl;
    int code = (int)(error & 0xfff);
    const char *text = libssl->ERR_reason_error_string(error);
    PyObject *library = library_name(libssl, error);
    PyObject *reason = library != NULL ? reason_name(text) : NULL;
    PyObject *message = NULL, *class = NULL, *exception = NULL;
    if (reason != NULL) {
        message = PyUnicode_FromFormat("[%S: %S] %s (%s(%U))", library, reason,
                                       text != NULL ? text : "unknown error",
                                       function, conn_name);
    }
    if (message != NULL) {
        class = exception_class(state, is_permanent(code)
                                           ? "RefusedByOpenSSLError"
                                           : "DeferredByOpenSSLError");
    }
    if (class != NULL) {
        exception = PyObject_CallFunction(class, "iO", code, message);
    }
    if (exception != NULL
        && PyObject_SetAttrString(exception, "library", library) == 0
        && PyObject_SetAttrString(exception, "reason", reason) == 0) {
        PyErr_SetObject(class, exception);
    }
    Py_XDECREF(exception);
    Py_XDECREF(class);
    Py_XDECREF(message);
    Py_XDECREF(reason);
    Py_XDECREF(library);
    return NULL;
}

static PyObject *
raise_refusal(ku_state *state, const struct ku_outcome *outcome,
              const char *function, PyObject *conn_name)
{
    const char *text = REFUSALS[outcome->refusal].text;
    PyObject *reason = outcome->detail != NULL
                           ? PyUnicode_FromFormat(text, outcome->detail)
                           : PyUnicode_FromString(text);
    PyObject *message = NULL;
    if (reason != NULL) {
        message = PyUnicode_FromFormat("%s(%U): %U", function, conn_name, reason);
        Py_DECREF(reason);
    }
    return raise(state, REFUSALS[outcome->refusal].exception, message);
}

PyObject *
ku_raise(ku_state *state, const struct ku_outcome *outcome,
         const char *function, PyObject *conn)
{
    if (outcome->refusal == KU_NOT_TLS) {
        return raise_not_tls(state, function, conn);
    }
    PyObject *conn_name = name_of(conn);
    if (conn_name == NULL) {
        return NULL;
    }
    if (outcome->refusal == KU_OPENSSL) {
        raise_openssl(state, outcome->error, function, conn_name);
    }
    else {
        raise_refusal(state, outcome, function, conn_name);
    }
    Py_DECREF(conn_name);
    return NULL;
}

PyObject *
ku_refuse(ku_state *state, enum ku_refusal refusal, const char *function,
          PyObject *conn)
{
    struct ku_outcome outcome = {.refusal = refusal};
    return ku_raise(state, &outcome, function, conn);
}

PyObject *
ku_refuse_type(ku_state *state, const char *function, PyObject *conn,
               PyObject *update_type)
{
    PyObject *conn_name = name_of(conn);
    PyObject *value = conn_name != NULL ? name_of(update_type) : NULL;
    if (value == NULL) {
        Py_XDECREF(conn_name);
        return NULL;
    }
    PyObject *message = PyUnicode_FromFormat(
        "%s(%U): update_type must be KeyUpdateType.NOT_REQUESTED (0) or "
        "KeyUpdateType.REQUESTED (1), not %U", function, conn_name, value);
    Py_DECREF(value);
    Py_DECREF(conn_name);
    return raise(state, "InvalidKeyUpdateTypeError", message);
}
