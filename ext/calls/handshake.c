/* What rekey(), flush() and request_client_certificate() need from OpenSSL beyond
   the controls: what has still to be sent, one pass of a handshake, and a request
   for the client's certificate.

   These are the package's own (pykeyupdate/_handshake.py calls them); a program
   has no use for them.  file:line are OpenSSL 3.5.7's. */
#include "calls/handshake.h"

#include "calls/step.h"
#include "keys/ledger.h"
#include "keys/scheduling.h"
#include "openssl/questions.h"

#ifdef _WIN32
#  include <windows.h>
#else
#  include <errno.h>
#endif
#include <string.h>

/* Of what kind is it, what this side has to send?  As in _handshake.py: nothing; a
   key update, scheduled or half sent; the answer to one that the peer requested;
   a renegotiation; one of which a message is half sent; another post-handshake
   message (TLS 1.3), half sent. */
enum {
    SENDS_NOTHING,
    SENDS_KEY_UPDATE,
    SENDS_ANSWER,
    SENDS_RENEGOTIATION,
    SENDS_RENEGOTIATION_REST,
    SENDS_OTHER_MESSAGE,
};

/* --- what is to be sent --------------------------------------------------- */

/* The type is forgotten when the message is built; of one that is half sent the
   state's name tells which it is (ssl_stat.c: TWCKU, TWSKU).  In init without
   either is the middle of a received message: that is the peer's to finish. */
static int
half_sent_kind(const struct ku_tls *tls)
{
    if (tls->libssl->SSL_want(tls->ssl) != SSL_WRITING) {
        return SENDS_NOTHING;
    }
    const char *state = tls->libssl->SSL_state_string(tls->ssl);
    return strcmp(state, "TWCKU") == 0 || strcmp(state, "TWSKU") == 0
               ? SENDS_KEY_UPDATE
               : SENDS_OTHER_MESSAGE;
}

static struct ku_outcome
tls13_to_send(const struct ku_tls *tls)
{
    int pending = ku_pending_key_update(tls);
    if (!tls->libssl->SSL_is_init_finished(tls->ssl)) {
        return ku_ok(pending != SSL_KEY_UPDATE_NONE ? SENDS_KEY_UPDATE
                                                    : half_sent_kind(tls));
    }
    return ku_ok(pending != SSL_KEY_UPDATE_NONE ? SENDS_ANSWER : SENDS_NOTHING);
}

static struct ku_outcome
to_send_step(const struct ku_tls *tls)
{
    enum ku_refusal refusal = ku_connection_state(tls);
    if (refusal != KU_OK) {
        return ku_refused(refusal);
    }
    if (tls->libssl->SSL_get_shutdown(tls->ssl) & SSL_SENT_SHUTDOWN) {
        return ku_ok(SENDS_NOTHING); /* nothing may follow a close_notify */
    }
    if (ku_is_tls13(tls)) {
        return tls13_to_send(tls);
    }
    if (!tls->libssl->SSL_is_init_finished(tls->ssl)) {
        return ku_ok(tls->libssl->SSL_want(tls->ssl) == SSL_WRITING
                         ? SENDS_RENEGOTIATION_REST
                         : SENDS_RENEGOTIATION);
    }
    return ku_ok(ku_renegotiates(tls) ? SENDS_RENEGOTIATION : SENDS_NOTHING);
}

/* Has received data not been read?  While that is so, a server's HelloRequest is
   not sent (ssl3_renegotiate_check(), s3_lib.c). */
static struct ku_outcome
has_unread_step(const struct ku_tls *tls)
{
    return ku_ok(tls->libssl->SSL_has_pending(tls->ssl) != 0);
}

/* --- one pass of a handshake ---------------------------------------------- */

/* What a failing socket leaves; Winsock's is Windows' last error. */
#ifdef _WIN32
static void
set_system_error(int number)
{
    SetLastError((DWORD)number);
}
static int
system_error(void)
{
    return (int)GetLastError();
}
#else
static void
set_system_error(int number)
{
    errno = number;
}
static int
system_error(void)
{
    return errno;
}
#endif

/* SSL_peek() drives a handshake as SSL_read() does, past application data that
   SSL_do_handshake() and SSL_write() die of (UNEXPECTED_RECORD, rec_layer_s3.c),
   and leaves that data for the next SSL_read().  The caller has made the socket
   one that does not block, so this is bounded by the cryptography of one flight;
   the GIL is kept, as nobody else may be in this connection meanwhile. */
static struct ku_outcome
advance_step(const struct ku_tls *tls)
{
    enum ku_refusal refusal = ku_connection_state(tls);
    if (refusal != KU_OK) {
        return ku_refused(refusal);
    }
    tls->libssl->ERR_clear_error();
    set_system_error(0);
    int got = ku_ledger_peek(tls);
    struct ku_outcome outcome = {.refusal = KU_IO};
    outcome.system_error = system_error();
    outcome.value = tls->libssl->SSL_get_error(tls->ssl, got);
    outcome.error = tls->libssl->ERR_peek_last_error();
    outcome.verify_result = tls->libssl->SSL_get_verify_result(tls->ssl);
    tls->libssl->ERR_clear_error();
    const struct ku_ledger *ledger = tls->ledger;
    if (ledger != NULL && ledger->why_cut != NULL && got <= 0) {
        return ku_refused_because(KU_PEER_LIMIT, ledger->why_cut);
    }
    if (outcome.value == SSL_ERROR_NONE || outcome.value == SSL_ERROR_WANT_READ
        || outcome.value == SSL_ERROR_WANT_WRITE) {
        return ku_ok(outcome.value);
    }
    return outcome;
}

/* A number that is another one after each handshake (and each post-handshake
   authentication) with the peer: an FNV-1a hash of its last Finished message,
   which OpenSSL keeps.  Nothing but "the same or not" is made of it. */
static struct ku_outcome
peer_finished_step(const struct ku_tls *tls)
{
    unsigned char finished[64]; /* EVP_MAX_MD_SIZE */
    size_t length =
        tls->libssl->SSL_get_peer_finished(tls->ssl, finished, sizeof(finished));
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < length && i < sizeof(finished); i++) {
        hash = (hash ^ finished[i]) * 16777619u;
    }
    return ku_ok((int)(hash & 0x7fffffff));
}

/* --- a request for the client's certificate --------------------------------- */

static struct ku_outcome
may_authenticate(const struct ku_tls *tls)
{
    enum ku_refusal refusal = ku_connection_state(tls);
    if (refusal == KU_OK && !ku_is_tls13(tls)) {
        return ku_may_renegotiate(tls);
    }
    if (refusal == KU_OK
        && (tls->libssl->SSL_get_shutdown(tls->ssl) & SSL_SENT_SHUTDOWN)) {
        refusal = KU_CLOSE_SENT;
    }
    if (refusal == KU_OK && !tls->libssl->SSL_is_init_finished(tls->ssl)) {
        refusal = KU_IN_MESSAGE;
    }
    if (refusal == KU_OK && tls->libssl->SSL_want(tls->ssl) == SSL_WRITING) {
        refusal = KU_WRITE_PENDING;
    }
    return ku_refused(refusal);
}

/* TLS 1.3: post-handshake authentication (RFC 9846 4.7.2). */
static struct ku_outcome
schedule_authentication(const struct ku_tls *tls)
{
    if (tls->libssl->SSL_verify_client_post_handshake == NULL) {
        return ku_refused_because(KU_MISSING, "SSL_verify_client_post_handshake");
    }
    struct ku_outcome outcome = ku_scheduled(
        tls->libssl, tls->libssl->SSL_verify_client_post_handshake(tls->ssl));
    switch (KU_ERROR_REASON(outcome.error)) {
    case SSL_R_EXTENSION_NOT_RECEIVED:
        return ku_refused(KU_NO_PHA);
    case SSL_R_REQUEST_PENDING:
    case SSL_R_REQUEST_SENT:
        return ku_refused(KU_CERTIFICATE_REQUESTED);
    default:
        return outcome;
    }
}

static struct ku_outcome
ask_for_certificate(const struct ku_tls *tls)
{
    if (ku_is_tls13(tls)) {
        return schedule_authentication(tls);
    }
    if (tls->libssl->SSL_renegotiate == NULL) {
        return ku_refused_because(KU_MISSING, "SSL_renegotiate");
    }
    /* A session that was resumed would carry no certificate. */
    uint64_t full = SSL_OP_NO_SESSION_RESUMPTION_ON_RENEGOTIATION;
    uint64_t was_full = tls->libssl->SSL_get_options(tls->ssl) & full;
    (void)tls->libssl->SSL_set_options(tls->ssl, full);
    struct ku_outcome outcome =
        ku_scheduled(tls->libssl, tls->libssl->SSL_renegotiate(tls->ssl));
    if (outcome.refusal != KU_OK && was_full == 0) {
        (void)tls->libssl->SSL_clear_options(tls->ssl, full);
    }
    return outcome;
}

/* The certificate is asked for whatever the context says; that the client may go
   without one, or not, stays as the context has it (FAIL_IF_NO_PEER_CERT).
   SSL_set_verify() without a callback keeps the one that is set (ssl_lib.c). */
static struct ku_outcome
request_anew(const struct ku_tls *tls)
{
    if (!tls->libssl->SSL_is_server(tls->ssl)) {
        return ku_refused(KU_NOT_SERVER);
    }
    struct ku_outcome may = may_authenticate(tls);
    if (may.refusal != KU_OK) {
        return may;
    }
    if (tls->libssl->SSL_has_pending(tls->ssl)) {
        return ku_refused(KU_UNREAD);
    }
    int mode = tls->libssl->SSL_get_verify_mode(tls->ssl);
    int is_tls13 = ku_is_tls13(tls);
    tls->libssl->ERR_clear_error();
    tls->libssl->SSL_set_verify(
        tls->ssl, mode | SSL_VERIFY_PEER | (is_tls13 ? SSL_VERIFY_POST_HANDSHAKE : 0),
        NULL);
    struct ku_outcome outcome = ask_for_certificate(tls);
    if (outcome.refusal != KU_OK) {
        tls->libssl->SSL_set_verify(tls->ssl, mode, NULL);
    }
    return outcome;
}

/* 1: it is under way already, as the caller says that it may be. */
static struct ku_outcome
request_certificate_step(const struct ku_tls *tls)
{
    struct ku_outcome outcome = request_anew(tls);
    int is_under_way = outcome.refusal == KU_RENEGOTIATING
                       || outcome.refusal == KU_IN_MESSAGE
                       || outcome.refusal == KU_WRITE_PENDING
                       || outcome.refusal == KU_CERTIFICATE_REQUESTED;
    return tls->argument && is_under_way ? ku_ok(1) : outcome;
}

/* --- the whole of it, over memory ------------------------------------------- */

/* Here nothing waits and nothing is half sent, so rekey() and its like are one step,
   in which no other thread, no signal handler and no exception comes between.  Of a
   socket that is not managed _handshake.py takes the same steps one by one. */

static struct ku_outcome
handshake_once(const struct ku_tls *tls)
{
    ku_clear_errors(tls->libssl);
    return tls->libssl->SSL_do_handshake(tls->ssl) == 1 ? ku_ok(0) : ku_failed_io(tls);
}

/* Make the message that is scheduled or owed.  The answer that OpenSSL itself sends
   with a write alone is made by an update of ours that asks for none: it is the same
   message, and its preconditions are known. */
static struct ku_outcome
flush_step(const struct ku_tls *tls)
{
    struct ku_outcome kind = to_send_step(tls);
    if (kind.refusal != KU_OK || kind.value == SENDS_NOTHING) {
        return kind;
    }
    if (kind.value == SENDS_RENEGOTIATION || kind.value == SENDS_RENEGOTIATION_REST) {
        return advance_step(tls);
    }
    if (kind.value == SENDS_ANSWER) {
        struct ku_outcome answer =
            ku_schedule_key_update(tls, SSL_KEY_UPDATE_NOT_REQUESTED);
        if (answer.refusal != KU_OK) {
            return answer;
        }
    }
    return handshake_once(tls);
}

static struct ku_outcome
schedule_new_keys(const struct ku_tls *tls, int update_type)
{
    struct ku_outcome outcome = ku_schedule_key_update(tls, update_type);
    if (outcome.refusal != KU_NEEDS_TLS13) {
        return outcome;
    }
    outcome = ku_may_renegotiate(tls);
    if (outcome.refusal == KU_OK && tls->libssl->SSL_has_pending(tls->ssl)) {
        outcome = ku_refused(KU_UNREAD);
    }
    return outcome.refusal == KU_OK ? ku_schedule_renegotiation(tls, 0) : outcome;
}

/* What is scheduled goes first: it may be what is wanted.  So does the answer that we
   owe, which a request of ours would replace. */
static struct ku_outcome
rekey_step(const struct ku_tls *tls)
{
    struct ku_outcome kind = to_send_step(tls);
    int wanted =
        tls->argument ? SSL_KEY_UPDATE_REQUESTED : SSL_KEY_UPDATE_NOT_REQUESTED;
    int scheduled = ku_pending_key_update(tls);
    struct ku_outcome outcome = kind;
    if (kind.refusal != KU_OK) {
        return kind;
    }
    if (kind.value == SENDS_KEY_UPDATE
        || (kind.value == SENDS_ANSWER && tls->argument)) {
        outcome = flush_step(tls);
    }
    if (outcome.refusal != KU_OK
        || (kind.value == SENDS_KEY_UPDATE && scheduled >= wanted)) {
        return outcome;
    }
    outcome = schedule_new_keys(tls, wanted);
    return outcome.refusal == KU_OK ? flush_step(tls) : outcome;
}

/* TLS 1.3 does not say that it has a request to send. */
static struct ku_outcome
request_step(const struct ku_tls *tls)
{
    struct ku_outcome kind = to_send_step(tls);
    if (kind.refusal == KU_OK && kind.value == SENDS_ANSWER
        && tls->libssl->SSL_is_server(tls->ssl)) {
        kind = flush_step(tls); /* or it would go in place of the request */
    }
    if (kind.refusal != KU_OK) {
        return kind;
    }
    struct ku_outcome outcome = request_certificate_step(tls);
    if (outcome.refusal != KU_OK) {
        return outcome;
    }
    return outcome.value == 0 && ku_is_tls13(tls) ? handshake_once(tls)
                                                  : flush_step(tls);
}

/* --- what callbacks have raised --------------------------------------------- */

/* --- as Python sees them -------------------------------------------------- */

typedef int (*taker)(ku_state *, const char *, PyObject *, ku_step, intptr_t, int *);

static PyObject *
step_value(PyObject *module, PyObject *args, taker take, ku_step step)
{
    PyObject *conn;
    const char *function;
    int value, argument = 0;
    if (!PyArg_ParseTuple(args, "Os|p", &conn, &function, &argument)
        || take(PyModule_GetState(module), function, conn, step, argument, &value)
               < 0) {
        return NULL;
    }
    return PyLong_FromLong(value);
}

/* clang-format off */
#define KU_FUNCTION(name, take)                           \
    static PyObject *py_##name(PyObject *module, PyObject *args) \
    {                                                     \
        return step_value(module, args, take, name##_step);  \
    }
KU_FUNCTION(to_send, ku_take_step_anytime)
KU_FUNCTION(has_unread, ku_take_step_anytime)
KU_FUNCTION(peer_finished, ku_take_step_anytime)
KU_FUNCTION(advance, ku_take_step)
KU_FUNCTION(request_certificate, ku_take_step)
KU_FUNCTION(rekey, ku_take_step_and_send)
KU_FUNCTION(flush, ku_take_step_and_send)
KU_FUNCTION(request, ku_take_step_and_send)
#undef KU_FUNCTION
/* clang-format on */

/* Each takes the connection and the name that errors give as the caller's. */
#define KU_ENTRY(name, doc)                                                            \
    {#name, py_##name, METH_VARARGS, #name "($module, conn, function, /)\n--\n\n" doc}

PyMethodDef ku_handshake[] = {
    KU_ENTRY(to_send, "Return which kind of message is to be sent, 0 for none."),
    KU_ENTRY(has_unread, "Return whether received data has not been read."),
    KU_ENTRY(advance,
             "Take a handshake as far as it goes by reading ahead, without "
             "blocking;\nreturn ssl.SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE or, "
             "where data can be\nread, 0."),
    KU_ENTRY(peer_finished,
             "Return a number that is another one after each handshake."),
    {"request_certificate", py_request_certificate, METH_VARARGS,
     "request_certificate($module, conn, function, under_way, /)\n--\n\n"
     "Schedule a request for the client's certificate, unless it is under way."},
    {"rekey", py_rekey, METH_VARARGS,
     "rekey($module, conn, function, request_peer, /)\n--\n\n"
     "Make new keys of a managed socket, and send, or of an object over memory."},
    KU_ENTRY(flush, "Make, and send, what is scheduled or owed; the same connections."),
    {"request", py_request, METH_VARARGS,
     "request($module, conn, function, under_way, /)\n--\n\n"
     "The same, and send; the same connections as for rekey()."},
    {NULL, NULL, 0, NULL},
};
