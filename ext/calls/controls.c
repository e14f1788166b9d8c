/* The controls, each with the preconditions that OpenSSL's own function lacks.

   Why each question is asked is said at the question.  The facts were measured
   on OpenSSL 1.1.1w, 3.0, 3.2, 3.5, 3.6 and 4.0; file:line are OpenSSL 3.5.7's. */
#include "calls/controls.h"

#include "calls/docstrings.h"
#include "keys/ledger.h"

#include <string.h>

/* Constants of OpenSSL's public headers, the same from 1.1.1 to 4.0. */
#define SSL3_VERSION 0x0300
#define SSL_CTRL_GET_TOTAL_RENEGOTIATIONS 12
#define SSL_CTRL_GET_RI_SUPPORT 76
#define BIO_CTRL_GET_KTLS_SEND 73 /* since 3.0; 1.1.1 has no kTLS */
#define BIO_CTRL_GET_KTLS_RECV 76
#define SSL_R_BAD_WRITE_RETRY 127

#define OPENSSL_1_1_1L 0x101010cfUL
#define OPENSSL_3_0_0 0x30000000UL

/* --- preconditions ---------------------------------------------------- */

/* After a fatal error the state machine stays in its error state for ever: a
   renegotiation would be "scheduled" all the same, a key update would say "still
   in init", which sounds as if it could pass.  State *numbers* differ between
   3.0 and 3.2; this string does not (ssl_stat.c). */
int
ku_has_failed(const struct ku_libssl *libssl, SSL *ssl)
{
    return strcmp(libssl->SSL_state_string(ssl), "SSLERR") == 0;
}

/* Have both Finished messages of a first handshake been exchanged?  "In init"
   alone cannot tell: it is also true in a renegotiation, while a key update is
   scheduled and in the middle of a post-handshake message. */
static int
was_connected(const struct ku_libssl *libssl, SSL *ssl)
{
    char ignored[1];
    return libssl->SSL_is_init_finished(ssl)
           || (libssl->SSL_get_finished(ssl, ignored, 0) > 0
               && libssl->SSL_get_peer_finished(ssl, ignored, 0) > 0);
}

int
ku_pending_key_update(const struct ku_libssl *libssl, SSL *ssl)
{
    return libssl->SSL_get_key_update_type != NULL
               ? libssl->SSL_get_key_update_type(ssl)
               : SSL_KEY_UPDATE_NONE;
}

int
ku_renegotiates(const struct ku_libssl *libssl, SSL *ssl)
{
    return libssl->SSL_renegotiate_pending != NULL
           && libssl->SSL_renegotiate_pending(ssl);
}

/* Kernel TLS: are keys of this connection in the kernel, out of reach? */
static int
keys_in_kernel(const struct ku_libssl *libssl, SSL *ssl)
{
    if (libssl->version < OPENSSL_3_0_0) {
        return 0;
    }
    BIO *reads = libssl->SSL_get_rbio(ssl), *writes = libssl->SSL_get_wbio(ssl);
    return (writes != NULL
            && libssl->BIO_ctrl(writes, BIO_CTRL_GET_KTLS_SEND, 0, NULL) > 0)
           || (reads != NULL
               && libssl->BIO_ctrl(reads, BIO_CTRL_GET_KTLS_RECV, 0, NULL) > 0);
}

/* Common to both controls.  Scheduling before the first handshake is the worst
   of all: SSL_renegotiate() says yes, SSL_do_handshake() then fails half-way, and
   the next SSL_write() sends its data *in plaintext* (every version; statem.c
   375-382 leaves in_handshake incremented). */
enum ku_refusal
ku_connection_state(const struct ku_libssl *libssl, SSL *ssl)
{
    const struct ku_ledger *ledger = ku_ledger_of(ssl);
    if (ku_has_failed(libssl, ssl) || (ledger != NULL && ledger->why_cut != NULL)) {
        return KU_FAILED;
    }
    return was_connected(libssl, ssl) ? KU_OK : KU_NO_HANDSHAKE;
}

/* SSL_key_update() succeeds after close_notify, and the KeyUpdate then goes out
   behind it: a protocol violation (RFC 9846 6.1). */
static enum ku_refusal
key_update_pending(const struct ku_libssl *libssl, SSL *ssl, int update_type)
{
    if (libssl->SSL_get_shutdown(ssl) & SSL_SENT_SHUTDOWN) {
        return KU_CLOSE_SENT;
    }
    int pending = ku_pending_key_update(libssl, ssl);
    if (!libssl->SSL_is_init_finished(ssl)) {
        return pending != SSL_KEY_UPDATE_NONE ? KU_UPDATE_SCHEDULED : KU_IN_MESSAGE;
    }
    /* Not in init and yet a type: the peer asked, and OpenSSL answers at our
       next write.  A request of ours would *replace* that answer, which must be
       update_not_requested (RFC 9846 4.7.3); GnuTLS hangs up on it. */
    if (pending != SSL_KEY_UPDATE_NONE && update_type == SSL_KEY_UPDATE_REQUESTED) {
        return KU_ANSWER_OWED;
    }
    return KU_OK;
}

/* What is left of an SSL_write() was encrypted under the old key and must go out
   before the KeyUpdate.  OpenSSL refuses by itself since 1.1.1l (BAD_WRITE_RETRY,
   ssl_lib.c 2822).  Older ones accept and the connection dies: of a pending write
   with BAD_LENGTH, of a half-read record with bad record mac (issues 12485 and
   13729).  With nothing to read, SSL_free_buffers() fails for a pending write
   and for no other reason (ssl_lib.c), and otherwise gives back idle buffers,
   which _ssl has OpenSSL do after every record anyway (RELEASE_BUFFERS). */
static enum ku_refusal
data_pending(const struct ku_libssl *libssl, SSL *ssl)
{
    if (libssl->SSL_want(ssl) == SSL_WRITING) {
        return KU_WRITE_PENDING;
    }
    if (libssl->version >= OPENSSL_1_1_1L) {
        return KU_OK;
    }
    if (libssl->SSL_has_pending(ssl)) {
        return KU_READ_PENDING_OLD;
    }
    return libssl->SSL_free_buffers(ssl) ? KU_OK : KU_WRITE_PENDING;
}

static struct ku_outcome
may_key_update(const struct ku_libssl *libssl, SSL *ssl, int update_type)
{
    enum ku_refusal refusal = ku_connection_state(libssl, ssl);
    if (refusal == KU_OK && libssl->SSL_version(ssl) != TLS1_3_VERSION) {
        return ku_refused_because(KU_NEEDS_TLS13, libssl->SSL_get_version(ssl));
    }
    if (refusal == KU_OK) {
        refusal = key_update_pending(libssl, ssl, update_type);
    }
    if (refusal == KU_OK) {
        refusal = data_pending(libssl, ssl);
    }
    if (refusal == KU_OK && !libssl->ktls_can_rekey && keys_in_kernel(libssl, ssl)) {
        refusal = KU_KERNEL_TLS;
    }
    return ku_refused(refusal);
}

/* SSL_renegotiate() says yes to all of this (can_renegotiate() looks at version
   and option only, ssl_lib.c 2860) and then: without RFC 5746 it is fatal;
   during a renegotiation the next I/O waits for a message that never comes;
   after a close_notify of either side nobody answers. */
static enum ku_refusal
renegotiation_state(const struct ku_libssl *libssl, SSL *ssl)
{
    int shutdown = libssl->SSL_get_shutdown(ssl);
    if (shutdown & SSL_SENT_SHUTDOWN) {
        return KU_CLOSE_SENT;
    }
    if (shutdown & SSL_RECEIVED_SHUTDOWN) {
        return KU_CLOSE_RECEIVED;
    }
    if (libssl->SSL_get_options(ssl) & SSL_OP_NO_RENEGOTIATION) {
        return KU_FORBIDDEN;
    }
    if (libssl->SSL_ctrl(ssl, SSL_CTRL_GET_RI_SUPPORT, 0, NULL) != 1) {
        return KU_INSECURE;
    }
    if (!libssl->SSL_is_init_finished(ssl) || ku_renegotiates(libssl, ssl)) {
        return KU_RENEGOTIATING;
    }
    /* Not harmful (it would begin after the write), but "scheduled" would then
       not mean "the next I/O performs it". */
    if (libssl->SSL_want(ssl) == SSL_WRITING) {
        return KU_WRITE_PENDING;
    }
    /* A client's next write would end the connection over unread data
       (UNEXPECTED_RECORD).  And where the half-read record is the server's own
       HelloRequest, OpenSSL renegotiates once and keeps its note to do so: it
       then waits for a server that has nothing to say (ssl3_renegotiate_check()
       does nothing while a record is half read, s3_lib.c). */
    if (!libssl->SSL_is_server(ssl) && libssl->SSL_has_pending(ssl)) {
        return KU_READ_PENDING;
    }
    /* No kernel changes the keys of TLS 1.2 in a live connection. */
    return keys_in_kernel(libssl, ssl) ? KU_KERNEL_TLS : KU_OK;
}

struct ku_outcome
ku_may_renegotiate(const struct ku_libssl *libssl, SSL *ssl)
{
    enum ku_refusal refusal = ku_connection_state(libssl, ssl);
    int version = libssl->SSL_version(ssl);
    if (refusal == KU_OK && (version < SSL3_VERSION || version > TLS1_2_VERSION)) {
        return ku_refused_because(KU_NEEDS_TLS12, libssl->SSL_get_version(ssl));
    }
    return ku_refused(refusal == KU_OK ? renegotiation_state(libssl, ssl) : refusal);
}

/* --- the calls, while the connection is held ---------------------------- */

/* What a function that schedules gave: 1, or 0 and one entry in this thread's
   error queue.  The queue is emptied, always: an entry left behind turns the next
   SSL_ERROR_WANT_READ into SSL_ERROR_SSL, a working connection into a dead one
   (_ssl does not clear before it reads). */
struct ku_outcome
ku_scheduled(const struct ku_libssl *libssl, int result)
{
    struct ku_outcome outcome = ku_ok(0);
    if (result != 1) {
        outcome.refusal = KU_OPENSSL;
        outcome.error = libssl->ERR_peek_last_error();
        if ((outcome.error & 0xfff) == SSL_R_BAD_WRITE_RETRY) {
            outcome.refusal = KU_WRITE_PENDING;
        }
    }
    libssl->ERR_clear_error();
    return outcome;
}

struct ku_outcome
ku_schedule_key_update(const struct ku_libssl *libssl, SSL *ssl, intptr_t update_type)
{
    if (libssl->SSL_key_update == NULL) {
        return ku_refused_because(KU_MISSING, "SSL_key_update");
    }
    struct ku_outcome may = may_key_update(libssl, ssl, (int)update_type);
    if (may.refusal != KU_OK) {
        return may;
    }
    libssl->ERR_clear_error();
    return ku_scheduled(libssl, libssl->SSL_key_update(ssl, (int)update_type));
}

static struct ku_outcome
get_key_update_type_step(const struct ku_libssl *libssl, SSL *ssl, intptr_t ignored)
{
    (void)ignored;
    if (libssl->SSL_get_key_update_type == NULL) {
        return ku_refused_because(KU_MISSING, "SSL_get_key_update_type");
    }
    return ku_ok(libssl->SSL_get_key_update_type(ssl));
}

struct ku_outcome
ku_schedule_renegotiation(const struct ku_libssl *libssl, SSL *ssl,
                          intptr_t abbreviated)
{
    int (*function)(SSL *) =
        abbreviated ? libssl->SSL_renegotiate_abbreviated : libssl->SSL_renegotiate;
    if (function == NULL) {
        return ku_refused_because(KU_MISSING, abbreviated
                                                  ? "SSL_renegotiate_abbreviated"
                                                  : "SSL_renegotiate");
    }
    struct ku_outcome may = ku_may_renegotiate(libssl, ssl);
    if (may.refusal != KU_OK) {
        return may;
    }
    libssl->ERR_clear_error();
    return ku_scheduled(libssl, function(ssl));
}

static struct ku_outcome
renegotiate_pending_step(const struct ku_libssl *libssl, SSL *ssl, intptr_t ignored)
{
    (void)ignored;
    if (libssl->SSL_renegotiate_pending == NULL) {
        return ku_refused_because(KU_MISSING, "SSL_renegotiate_pending");
    }
    return ku_ok(libssl->SSL_renegotiate_pending(ssl));
}

/* SSL_get_secure_renegotiation_support() is a macro for the SSL_ctrl().  A TLS 1.3
   server gives 1 when the client offered it for the case of TLS 1.2 (a client
   gives 0): nothing was negotiated, so both ends say no here. */
static struct ku_outcome
secure_renegotiation_step(const struct ku_libssl *libssl, SSL *ssl, intptr_t ignored)
{
    (void)ignored;
    return ku_ok(libssl->SSL_version(ssl) <= TLS1_2_VERSION
                 && libssl->SSL_ctrl(ssl, SSL_CTRL_GET_RI_SUPPORT, 0, NULL) == 1);
}

/* SSL_total_renegotiations() is a macro for this. */
static struct ku_outcome
total_renegotiations_step(const struct ku_libssl *libssl, SSL *ssl, intptr_t ignored)
{
    (void)ignored;
    return ku_ok(
        (int)libssl->SSL_ctrl(ssl, SSL_CTRL_GET_TOTAL_RENEGOTIATIONS, 0, NULL));
}

/* --- the calls, as Python sees them ------------------------------------- */

static PyObject *
returning_bool(PyObject *module, const char *function, PyObject *conn, ku_step step,
               int argument)
{
    int value;
    ku_state *state = PyModule_GetState(module);
    if (ku_take_step_anytime(state, function, conn, step, argument, &value) < 0) {
        return NULL;
    }
    return PyBool_FromLong(value);
}

/* The int of an update type that can be scheduled, or -1 with ValueError. */
static int
update_type_of(ku_state *state, PyObject *conn, PyObject *update_type)
{
    int overflow = 0;
    long value = -1;
    if (PyLong_Check(update_type)) {
        value = PyLong_AsLongAndOverflow(update_type, &overflow);
    }
    if (value == SSL_KEY_UPDATE_NOT_REQUESTED || value == SSL_KEY_UPDATE_REQUESTED) {
        return (int)value;
    }
    (void)ku_refuse_type(state, "key_update", conn, update_type);
    return -1;
}

static PyObject *
py_key_update(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"", "update_type", NULL};
    ku_state *state = PyModule_GetState(module);
    PyObject *conn, *update_type = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:key_update", names, &conn,
                                     &update_type)) {
        return NULL;
    }
    int type = SSL_KEY_UPDATE_NOT_REQUESTED;
    if (update_type != NULL) {
        type = update_type_of(state, conn, update_type);
    }
    int value;
    if (type < 0
        || ku_take_step(state, "key_update", conn, ku_schedule_key_update, type, &value)
               < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
py_get_key_update_type(PyObject *module, PyObject *conn)
{
    int value;
    ku_state *state = PyModule_GetState(module);
    if (ku_take_step_anytime(state, "get_key_update_type", conn,
                             get_key_update_type_step, 0, &value)
        < 0) {
        return NULL;
    }
    if (value < SSL_KEY_UPDATE_NONE || value > SSL_KEY_UPDATE_REQUESTED) {
        /* KeyUpdateType(value) says in its ValueError that it knows no such. */
        return PyObject_CallFunction((PyObject *)Py_TYPE(state->update_types[0]), "i",
                                     value);
    }
    PyObject *member = state->update_types[value - SSL_KEY_UPDATE_NONE];
    Py_INCREF(member);
    return member;
}

static PyObject *
begin_renegotiation(PyObject *module, const char *function, PyObject *conn,
                    int abbreviated)
{
    int value;
    ku_state *state = PyModule_GetState(module);
    if (ku_take_step(state, function, conn, ku_schedule_renegotiation, abbreviated,
                     &value)
        < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
py_renegotiate(PyObject *module, PyObject *conn)
{
    return begin_renegotiation(module, "renegotiate", conn, 0);
}

static PyObject *
py_renegotiate_abbreviated(PyObject *module, PyObject *conn)
{
    return begin_renegotiation(module, "renegotiate_abbreviated", conn, 1);
}

static PyObject *
py_renegotiate_pending(PyObject *module, PyObject *conn)
{
    return returning_bool(module, "renegotiate_pending", conn, renegotiate_pending_step,
                          0);
}

static PyObject *
py_secure_renegotiation(PyObject *module, PyObject *conn)
{
    return returning_bool(module, "secure_renegotiation", conn,
                          secure_renegotiation_step, 0);
}

static PyObject *
py_total_renegotiations(PyObject *module, PyObject *conn)
{
    int value;
    ku_state *state = PyModule_GetState(module);
    if (ku_take_step_anytime(state, "total_renegotiations", conn,
                             total_renegotiations_step, 0, &value)
        < 0) {
        return NULL;
    }
    return PyLong_FromLong(value);
}

/* PyMethodDef has one type for all signatures; the flags tell them apart.  The
   cast by way of void (*)(void) is what compilers take as meant. */
#define WITH_KEYWORDS(function) ((PyCFunction)(void (*)(void))(function))

PyMethodDef ku_controls[] = {
    {"key_update", WITH_KEYWORDS(py_key_update), METH_VARARGS | METH_KEYWORDS,
     key_update_doc},
    {"get_key_update_type", py_get_key_update_type, METH_O, get_key_update_type_doc},
    {"renegotiate", py_renegotiate, METH_O, renegotiate_doc},
    {"renegotiate_abbreviated", py_renegotiate_abbreviated, METH_O,
     renegotiate_abbreviated_doc},
    {"renegotiate_pending", py_renegotiate_pending, METH_O, renegotiate_pending_doc},
    {"secure_renegotiation", py_secure_renegotiation, METH_O, secure_renegotiation_doc},
    {"total_renegotiations", py_total_renegotiations, METH_O, total_renegotiations_doc},
    {NULL, NULL, 0, NULL},
};
