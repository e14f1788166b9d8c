/* Refusals as exceptions of pykeyupdate.errors.

   The class says what a program does about it (not now / never); the message
   says what a person does: which call, on which connection, why, and the remedy.
   OpenSSL's own refusals look as _ssl's: args (reason code, text), .library,
   .reason (_ssl.c, fill_and_set_sslerror).  What ends a connection in a handshake
   step of ours is the ssl module's own exception (_ssl.c, PySSL_SetError). */
#include "errors.h"

#include <errno.h>
#include <string.h>

/* Reason codes of OpenSSL's SSL library, the same from 1.1.1 to 4.0. */
#define ERR_LIB_SSL 20
#define SSL_R_INVALID_KEY_UPDATE_TYPE 120
#define SSL_R_WRONG_SSL_VERSION 266
#define SSL_R_UNINITIALIZED 276
#define SSL_R_NO_RENEGOTIATION 339
#define SSL_R_CERTIFICATE_VERIFY_FAILED 134
#define SSL_R_UNEXPECTED_EOF_WHILE_READING 294

#define X509_V_ERR_HOSTNAME_MISMATCH 62
#define X509_V_ERR_IP_ADDRESS_MISMATCH 64

/* SSL_get_error(), which are ssl.SSL_ERROR_* too. */
#define SSL_ERROR_SSL 1
#define SSL_ERROR_WANT_READ 2
#define SSL_ERROR_WANT_WRITE 3
#define SSL_ERROR_ZERO_RETURN 6
#define PY_SSL_ERROR_EOF 8

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
        "a fatal TLS error, or its PeerLimits, ended this connection; close it and "
        "open a new one"},
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
        "OP_NO_RENEGOTIATION is set (kernel TLS and PeerLimits set it too); clear it "
        "in the context's options before connecting, or, of a managed connection, "
        "change PeerLimits.renegotiation or use allow_renegotiation()"},
    [KU_INSECURE] = {
        "InsecureRenegotiationError",
        "the peer does not support secure renegotiation (RFC 5746); open a new "
        "connection to get new keys"},
    [KU_KERNEL_TLS] = {
        "KernelTLSError",
        "the kernel holds this connection's keys (OP_ENABLE_KTLS) and this "
        "OpenSSL with this kernel cannot change them; connect without "
        "OP_ENABLE_KTLS"},
    [KU_NOT_SERVER] = {
        "WrongRoleError",
        "only a server can ask for its peer's certificate; a client verified the "
        "server's in the handshake, see getpeercert()"},
    [KU_NO_PHA] = {
        "NoPostHandshakeAuthError",
        "the client did not offer post-handshake authentication, without which "
        "TLS 1.3 has no way to ask (Python clients: SSLContext."
        "post_handshake_auth = True)"},
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
    [KU_UNREAD] = {
        "ReadPendingError",
        "received data is waiting and would stand in front of the client's answer; "
        "recv() it first"},
    [KU_CERTIFICATE_REQUESTED] = {
        "AlreadyPendingError",
        "the client has been asked for its certificate and has not answered; "
        "recv() takes the answer"},
    [KU_FORKED] = {
        "ConnectionFailedError",
        "another thread was in this connection when the process forked, so it is "
        "the parent's; close it and open a new one"},
    [KU_UNMANAGED] = {
        "NotManagedError",
        "it is not a managed connection; have its context make them with manage() "
        "or install() before connecting"},
    [KU_NOT_ALLOWED] = {
        "WrongProtocolVersionError",
        "it is %s, where new keys take a renegotiation, which its RekeyPolicy does "
        "not allow (renegotiate=True does); or connect with TLS 1.3"},
    [KU_PEER_TOO_MUCH] = {
        "PeerLimitError",
        "the peer began more %s than it may and was cut off; close it (or, if this "
        "peer is to be trusted, raise that limit)"},
    [KU_DATA_IN_FRONT] = {
        "ReadPendingError",
        "more than a megabyte of application data has come before the peer's "
        "handshake message; recv() it, then call again to go on (nothing has been "
        "lost)"},
    [KU_IN_CALLBACK] = {
        "AlreadyPendingError",
        "this thread is in a step of this connection, from which the ssl module "
        "has called it; read, write and shake hands after that"},
    [KU_BUSY] = {
        "AlreadyPendingError",
        "it is being read or written already, by another thread or around this very "
        "call, and would break; use an SSLObject in one thread at a time"},
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
    PyErr_SetString(PyExc_RuntimeError, KU_SHUTTING_DOWN);
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

int
ku_is_for_good(const struct ku_outcome *outcome)
{
    return outcome->refusal == KU_OPENSSL
               ? is_permanent((int)(outcome->error & 0xfff))
               : outcome->refusal != KU_OK && outcome->refusal < KU_NO_HANDSHAKE;
}

/* Raise class(number, text) as the ssl module does, with .library and .reason;
   `detail` is more text, or "".  Takes the reference to `class`. */
static PyObject *
raise_ssl(ku_state *state, PyObject *class, int number, unsigned long error,
          const char *detail, const char *function, PyObject *conn_name)
{
    const struct ku_libssl *libssl = &state->libssl;
    const char *text = libssl->ERR_reason_error_string(error);
    PyObject *library = class != NULL ? library_name(libssl, error) : NULL;
    PyObject *reason = library != NULL ? reason_name(text) : NULL;
    PyObject *message = NULL, *exception = NULL;
    if (reason != NULL) {
        message = PyUnicode_FromFormat("[%S: %S] %s%s (%s(%U))", library, reason,
                                       text != NULL ? text : "unknown error", detail,
                                       function, conn_name);
    }
    if (message != NULL) {
        exception = PyObject_CallFunction(class, "iO", number, message);
    }
    if (exception != NULL
        && PyObject_SetAttrString(exception, "library", library) == 0
        && PyObject_SetAttrString(exception, "reason", reason) == 0) {
        PyErr_SetObject(class, exception);
    }
    Py_XDECREF(exception);
    Py_XDECREF(message);
    Py_XDECREF(reason);
    Py_XDECREF(library);
    Py_XDECREF(class);
    return NULL;
}

static PyObject *
raise_openssl(ku_state *state, unsigned long error, const char *function,
              PyObject *conn_name)
{
    int code = (int)(error & 0xfff);
    PyObject *class = exception_class(state, is_permanent(code)
                                                 ? "RefusedByOpenSSLError"
                                                 : "DeferredByOpenSSLError");
    return raise_ssl(state, class, code, error, "", function, conn_name);
}

/* --- the end of a connection, as the ssl module tells it ------------------ */

static PyObject *
ssl_class(const char *name)
{
    PyObject *ssl = PyImport_ImportModule("ssl");
    PyObject *class = ssl != NULL ? PyObject_GetAttrString(ssl, name) : NULL;
    Py_XDECREF(ssl);
    return class;
}

static PyObject *
raise_end(const char *class_name, int number, const char *text)
{
    PyObject *class = ssl_class(class_name);
    PyObject *arguments = class != NULL ? Py_BuildValue("(is)", number, text) : NULL;
    if (arguments != NULL) {
        PyErr_SetObject(class, arguments);
    }
    Py_XDECREF(arguments);
    Py_XDECREF(class);
    return NULL;
}

/* What is wrong with the certificate, in the ssl module's words. */
static PyObject *
verify_message(ku_state *state, long verify_result, PyObject *conn)
{
    const char *what = verify_result == X509_V_ERR_HOSTNAME_MISMATCH ? "Hostname"
                       : verify_result == X509_V_ERR_IP_ADDRESS_MISMATCH
                           ? "IP address"
                           : NULL;
    if (what == NULL) {
        return PyUnicode_FromString(
            state->libssl.X509_verify_cert_error_string(verify_result));
    }
    PyObject *name = PyObject_GetAttrString(conn, "server_hostname");
    PyObject *text = NULL;
    if (name != NULL) {
        text = PyUnicode_FromFormat(
            "%s mismatch, certificate is not valid for '%S'.", what, name);
        Py_DECREF(name);
    }
    return text;
}

static PyObject *
raise_unverified(ku_state *state, const struct ku_outcome *outcome,
                 const char *function, PyObject *conn, PyObject *conn_name)
{
    PyObject *text = verify_message(state, outcome->verify_result, conn);
    PyObject *detail = text != NULL ? PyUnicode_FromFormat(": %U", text) : NULL;
    const char *utf8 = detail != NULL ? PyUnicode_AsUTF8AndSize(detail, NULL) : NULL;
    if (utf8 == NULL) {
        Py_XDECREF(detail);
        Py_XDECREF(text);
        return NULL;
    }
    raise_ssl(state, ssl_class("SSLCertVerificationError"), SSL_ERROR_SSL,
              outcome->error, utf8, function, conn_name);
    Py_DECREF(detail);
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    PyObject *code = PyLong_FromLong(outcome->verify_result);
    if (code != NULL && text != NULL
        && PyObject_SetAttrString(value, "verify_code", code) == 0
        && PyObject_SetAttrString(value, "verify_message", text) == 0) {
        PyErr_Restore(type, value, traceback);
    }
    else {
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(traceback);
    }
    Py_XDECREF(code);
    Py_XDECREF(text);
    return NULL;
}

static PyObject *
raise_io(ku_state *state, const struct ku_outcome *outcome, const char *function,
         PyObject *conn, PyObject *conn_name)
{
    int reason = (int)(outcome->error & 0xfff);
    if (outcome->value == SSL_ERROR_WANT_READ) {
        return raise_end("SSLWantReadError", SSL_ERROR_WANT_READ,
                         "The operation did not complete (read)");
    }
    if (outcome->value == SSL_ERROR_WANT_WRITE) {
        return raise_end("SSLWantWriteError", SSL_ERROR_WANT_WRITE,
                         "The operation did not complete (write)");
    }
    if (outcome->value == SSL_ERROR_ZERO_RETURN) {
        return raise_end("SSLZeroReturnError", SSL_ERROR_ZERO_RETURN,
                         "TLS/SSL connection has been closed (EOF)");
    }
    if (outcome->value == SSL_ERROR_SSL
        && reason == SSL_R_CERTIFICATE_VERIFY_FAILED) {
        return raise_unverified(state, outcome, function, conn, conn_name);
    }
    if (outcome->value == SSL_ERROR_SSL
        && reason != SSL_R_UNEXPECTED_EOF_WHILE_READING) {
        return raise_ssl(state, ssl_class("SSLError"), SSL_ERROR_SSL, outcome->error,
                         outcome->detail != NULL ? outcome->detail : "", function,
                         conn_name);
    }
    if (outcome->system_error != 0) {
#ifdef _WIN32
        return PyErr_SetFromWindowsErr(outcome->system_error);
#else
        errno = outcome->system_error;
        return PyErr_SetFromErrno(PyExc_OSError);
#endif
    }
    return raise_end("SSLEOFError", PY_SSL_ERROR_EOF,
                     "EOF occurred in violation of protocol");
}

PyObject *
ku_reason(ku_state *state, const struct ku_outcome *outcome)
{
    if (outcome->refusal == KU_OPENSSL) {
        const char *reason = state->libssl.ERR_reason_error_string(outcome->error);
        return PyUnicode_FromFormat("OpenSSL refuses: %s",
                                    reason != NULL ? reason : "unknown error");
    }
    const char *text = REFUSALS[outcome->refusal].text;
    return outcome->detail != NULL ? PyUnicode_FromFormat(text, outcome->detail)
                                   : PyUnicode_FromString(text);
}

/* ssl.SSLError and its like take a number and a text. */
static PyObject *
raise_with_number(ku_state *state, const char *class_name, PyObject *message)
{
    PyObject *arguments =
        message != NULL ? Py_BuildValue("(iO)", SSL_ERROR_SSL, message) : NULL;
    Py_XDECREF(message);
    return raise(state, class_name, arguments);
}

static PyObject *
raise_refusal(ku_state *state, const struct ku_outcome *outcome,
              const char *function, PyObject *conn_name)
{
    PyObject *reason = ku_reason(state, outcome);
    PyObject *message = NULL;
    if (reason != NULL) {
        message = PyUnicode_FromFormat("%s(%U): %U", function, conn_name, reason);
        Py_DECREF(reason);
    }
    const char *class_name = REFUSALS[outcome->refusal].exception;
    return outcome->refusal == KU_PEER_TOO_MUCH
               ? raise_with_number(state, class_name, message)
               : raise(state, class_name, message);
}

PyObject *
ku_raise(ku_state *state, const struct ku_outcome *outcome,
         const char *function, PyObject *conn)
{
    PyObject *conn_name = name_of(conn);
    if (conn_name == NULL) {
        return NULL;
    }
    if (outcome->refusal == KU_OPENSSL) {
        raise_openssl(state, outcome->error, function, conn_name);
    }
    else if (outcome->refusal == KU_IO) {
        raise_io(state, outcome, function, conn, conn_name);
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
