/* What rekey(), flush() and request_client_certificate() need from OpenSSL beyond the
   controls: what still has to be sent, one pass of a handshake, and a request for the
   client's certificate.

   Only the package calls these functions (pykeyupdate/_rekeying.py, _sync.py, aio.py
   and _carrier_io.py); a program has no use for them.  Line numbers are OpenSSL
   3.5.7's. */
#include "calls/rekeying.h"

#include "calls/step.h"
#include "keys/counted_io.h"
#include "keys/ledger.h"
#include "keys/scheduling.h"
#include "openssl/questions.h"
#include "openssl/states.h"
#include "system/hash.h"

#ifdef _WIN32
#  include <windows.h>
#else
#  include <errno.h>
#endif

/* --- what has to be sent ---------------------------------------------------------- */

/* OpenSSL forgets the type of a KeyUpdate when it has built the message.  If the
   message is half sent, the state tells that it is one (ssl_stat.c: TWCKU, TWSKU).
   If the state is "in init" with neither a type nor a pending write, OpenSSL
   is in the middle of a received message, and it is for the peer to send the rest. */
static int
half_sent_kind(const struct ku_tls *tls)
{
    if (tls->libssl->SSL_want(tls->ssl) != SSL_WRITING) {
        return SENDS_NOTHING;
    }
    return ku_tls_state(tls) == KU_STATE_SENT_KEY_UPDATE ? SENDS_KEY_UPDATE
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
                         ? SENDS_RENEGOTIATION_UNSENT
                         : SENDS_RENEGOTIATION);
    }
    return ku_ok(ku_renegotiates(tls) ? SENDS_RENEGOTIATION : SENDS_NOTHING);
}

/* Is there received data that has not been read?  As long as there is, a server's
   HelloRequest is not sent (ssl3_renegotiate_check(), s3_lib.c). */
static struct ku_outcome
has_unread_step(const struct ku_tls *tls)
{
    return ku_ok(tls->libssl->SSL_has_pending(tls->ssl) != 0);
}

/* --- one pass of a handshake ------------------------------------------------------ */

/* The error that a failed socket call leaves.  Winsock's is Windows' last error. */
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

/* SSL_peek() drives a handshake as SSL_read() does, past application data over which
   SSL_do_handshake() and SSL_write() fail (UNEXPECTED_RECORD, rec_layer_s3.c), and
   leaves that data for the next SSL_read().  The caller has made the socket
   non-blocking, so this lasts no longer than the cryptography of one flight.  The GIL
   is kept (step.h has the exceptions), because nobody else may be in this connection
   meanwhile. */
static struct ku_outcome
advance_step(const struct ku_tls *tls)
{
    enum ku_refusal refusal = ku_connection_state(tls);
    if (refusal != KU_OK) {
        return ku_refused(refusal);
    }
    set_system_error(0);
    struct ku_outcome outcome = ku_counted_peek(tls);
    outcome.system_error = system_error();
    if (outcome.refusal == KU_OK) {
        return ku_ok(SSL_ERROR_NONE);
    }
    if (tls->ledger != NULL && tls->ledger->why_cut != NULL) {
        return ku_refused_because(KU_PEER_LIMIT, tls->ledger->why_cut);
    }
    return outcome.value == SSL_ERROR_WANT_READ || outcome.value == SSL_ERROR_WANT_WRITE
               ? ku_ok(outcome.value)
               : outcome;
}

/* A number that changes with each handshake (and each post-handshake authentication)
   with the peer: a hash of the peer's last Finished message, which OpenSSL keeps.  It
   is used only to tell whether two are the same. */
static struct ku_outcome
peer_finished_step(const struct ku_tls *tls)
{
    unsigned char finished[64]; /* EVP_MAX_MD_SIZE */
    size_t length =
        tls->libssl->SSL_get_peer_finished(tls->ssl, finished, sizeof(finished));
    length = length < sizeof(finished) ? length : sizeof(finished);
    return ku_ok((int)(ku_hash(finished, length) & 0x7fffffff));
}

/* --- a request for the client's certificate --------------------------------------- */

static struct ku_outcome
check_authentication(const struct ku_tls *tls)
{
    enum ku_refusal refusal = ku_connection_state(tls);
    if (refusal == KU_OK && !ku_is_tls13(tls)) {
        return ku_check_renegotiation(tls);
    }
    int shutdown = tls->libssl->SSL_get_shutdown(tls->ssl);
    if (refusal == KU_OK && shutdown != 0) {
        refusal = shutdown & SSL_SENT_SHUTDOWN ? KU_CLOSE_SENT : KU_CLOSE_RECEIVED;
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
    case SSL_R_EXTENSION_NOT_RECEIVED: return ku_refused(KU_NO_PHA);
    case SSL_R_REQUEST_PENDING:
    case SSL_R_REQUEST_SENT: return ku_refused(KU_CERTIFICATE_REQUESTED);
    default: return outcome;
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
    /* A resumed session would carry no certificate. */
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

/* Ask for the certificate whatever the context says.  Whether the client may decline is
   still up to the context (FAIL_IF_NO_PEER_CERT).  SSL_set_verify() without a callback
   keeps the one that is set (ssl_lib.c). */
static struct ku_outcome
request_certificate_now(const struct ku_tls *tls)
{
    if (!tls->libssl->SSL_is_server(tls->ssl)) {
        return ku_refused(KU_NOT_SERVER);
    }
    struct ku_outcome may = check_authentication(tls);
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

/* The value is 1 if a request is already under way, which the argument allows. */
static struct ku_outcome
request_certificate_step(const struct ku_tls *tls)
{
    struct ku_outcome outcome = request_certificate_now(tls);
    int is_under_way = outcome.refusal == KU_RENEGOTIATING
                       || outcome.refusal == KU_IN_MESSAGE
                       || outcome.refusal == KU_WRITE_PENDING
                       || outcome.refusal == KU_CERTIFICATE_REQUESTED;
    return tls->argument && is_under_way ? ku_ok(1) : outcome;
}

/* --- all of it in one step, over memory ------------------------------------------- */

/* Over memory nothing waits and nothing is half sent, so rekey() and its like are a
   single step, which no other thread, signal handler or exception can interrupt.  On a
   socket that is not managed, pykeyupdate/_rekeying.py takes the same steps one by
   one. */

/* OpenSSL sends an answer together with a write, also with one of nothing.  (A key
   update of our own would be the same message, but a coming OpenSSL refuses one that
   comes soon after another; answers it does not hold back.) */
static struct ku_outcome
answer_step(const struct ku_tls *tls)
{
    struct ku_outcome may = ku_check_key_update(tls, SSL_KEY_UPDATE_NOT_REQUESTED);
    size_t written;
    return may.refusal == KU_OK ? ku_counted_write(tls, "", 0, &written) : may;
}

/* Make the message that is scheduled or owed. */
static struct ku_outcome
flush_step(const struct ku_tls *tls)
{
    struct ku_outcome kind = to_send_step(tls);
    if (kind.refusal != KU_OK || kind.value == SENDS_NOTHING) {
        return kind;
    }
    if (kind.value == SENDS_RENEGOTIATION || kind.value == SENDS_RENEGOTIATION_UNSENT) {
        return advance_step(tls);
    }
    return kind.value == SENDS_ANSWER ? answer_step(tls) : ku_do_handshake(tls);
}

static struct ku_outcome
schedule_rekey(const struct ku_tls *tls, int update_type)
{
    struct ku_outcome outcome = ku_schedule_key_update(tls, update_type);
    if (outcome.refusal != KU_NEEDS_TLS13) {
        return outcome;
    }
    outcome = ku_check_renegotiation(tls);
    if (outcome.refusal == KU_OK && tls->libssl->SSL_has_pending(tls->ssl)) {
        outcome = ku_refused(KU_UNREAD);
    }
    return outcome.refusal == KU_OK ? ku_schedule_renegotiation(tls, 0) : outcome;
}

/* What is scheduled is sent first, because it may be what is wanted.  So is the answer
   that we owe: it gives new keys, too, and a request of ours would replace it. */
static struct ku_outcome
rekey_step(const struct ku_tls *tls)
{
    struct ku_outcome kind = to_send_step(tls);
    int wanted =
        tls->argument ? SSL_KEY_UPDATE_REQUESTED : SSL_KEY_UPDATE_NOT_REQUESTED;
    int scheduled = ku_pending_key_update(tls);
    if (kind.refusal != KU_OK) {
        return kind;
    }
    if (kind.value == SENDS_KEY_UPDATE || kind.value == SENDS_ANSWER) {
        struct ku_outcome sent = flush_step(tls);
        if (sent.refusal != KU_OK || scheduled >= wanted) {
            return sent;
        }
    }
    struct ku_outcome outcome = schedule_rekey(tls, wanted);
    return outcome.refusal == KU_OK ? flush_step(tls) : outcome;
}

/* With TLS 1.3, OpenSSL does not say that it has a request to send. */
static struct ku_outcome
request_step(const struct ku_tls *tls)
{
    struct ku_outcome kind = to_send_step(tls);
    if (kind.refusal == KU_OK && kind.value == SENDS_ANSWER
        && tls->libssl->SSL_is_server(tls->ssl)) {
        kind = flush_step(tls); /* or it would be sent in place of the request */
    }
    if (kind.refusal != KU_OK) {
        return kind;
    }
    struct ku_outcome outcome = request_certificate_step(tls);
    if (outcome.refusal != KU_OK) {
        return outcome;
    }
    return outcome.value == 0 && ku_is_tls13(tls) ? ku_do_handshake(tls)
                                                  : flush_step(tls);
}

/* --- functions that Python calls -------------------------------------------------- */

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

/* Each function takes the connection, and the name that errors give for the call. */
#define KU_ENTRY(name, doc)                                                            \
    {#name, py_##name, METH_VARARGS, #name "($module, conn, function, /)\n--\n\n" doc}

PyMethodDef ku_rekeying[] = {
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
