/* Schedules new keys, and checks the preconditions that OpenSSL's own functions do not
   check.

   Each check says why it is there.  The facts were measured on OpenSSL 1.1.1w, 3.0,
   3.2, 3.5, 3.6 and 4.0; file names and lines are OpenSSL 3.5.7's. */
#include "keys/scheduling.h"

#include "keys/ledger.h"
#include "openssl/questions.h"

/* Both controls check this.  To schedule before the first handshake is the worst case:
   SSL_renegotiate() succeeds, SSL_do_handshake() then fails half-way, and the next
   SSL_write() sends its data *in plaintext* (every version; statem.c 375-382 leaves
   in_handshake incremented). */
enum ku_refusal
ku_connection_state(const struct ku_tls *tls)
{
    const struct ku_ledger *ledger = tls->ledger;
    if (ku_has_failed(tls) || (ledger != NULL && ledger->why_cut != NULL)) {
        return KU_FAILED;
    }
    return ku_was_connected(tls) ? KU_OK : KU_NO_HANDSHAKE;
}

/* SSL_key_update() succeeds after a close_notify, and the KeyUpdate then goes out
   behind it: a protocol violation (RFC 9846 6.1). */
static enum ku_refusal
key_update_pending(const struct ku_tls *tls, int update_type)
{
    if (tls->libssl->SSL_get_shutdown(tls->ssl) & SSL_SENT_SHUTDOWN) {
        return KU_CLOSE_SENT;
    }
    int pending = ku_pending_key_update(tls);
    if (!tls->libssl->SSL_is_init_finished(tls->ssl)) {
        return pending != SSL_KEY_UPDATE_NONE ? KU_UPDATE_SCHEDULED : KU_IN_MESSAGE;
    }
    /* There is a type although the state is not "in init": the peer has requested an
       update, and OpenSSL answers with our next write.  A request of ours would
       *replace* that answer, which must be update_not_requested (RFC 9846 4.7.3);
       GnuTLS hangs up on it. */
    if (pending != SSL_KEY_UPDATE_NONE && update_type == SSL_KEY_UPDATE_REQUESTED) {
        return KU_ANSWER_OWED;
    }
    return KU_OK;
}

/* The rest of a half-done SSL_write() was encrypted under the old key and must go out
   before the KeyUpdate.  Since 1.1.1l OpenSSL refuses by itself (BAD_WRITE_RETRY,
   ssl_lib.c 2822).  Older versions accept, and the connection dies: over a pending
   write with BAD_LENGTH, over a half-read record with bad record mac (issues 12485 and
   13729).  If there is nothing to read, SSL_free_buffers() fails for a pending write
   and for no other reason (ssl_lib.c); otherwise it frees idle buffers, which _ssl has
   OpenSSL do after every record anyway (RELEASE_BUFFERS). */
static enum ku_refusal
data_pending(const struct ku_tls *tls)
{
    if (tls->libssl->SSL_want(tls->ssl) == SSL_WRITING) {
        return KU_WRITE_PENDING;
    }
    if (tls->libssl->version >= OPENSSL_1_1_1L) {
        return KU_OK;
    }
    if (tls->libssl->SSL_has_pending(tls->ssl)) {
        return KU_READ_PENDING_OLD;
    }
    return tls->libssl->SSL_free_buffers(tls->ssl) ? KU_OK : KU_WRITE_PENDING;
}

struct ku_outcome
ku_check_key_update(const struct ku_tls *tls, int update_type)
{
    enum ku_refusal refusal = ku_connection_state(tls);
    if (refusal == KU_OK && !ku_is_tls13(tls)) {
        return ku_refused_because(KU_NEEDS_TLS13,
                                  tls->libssl->SSL_get_version(tls->ssl));
    }
    if (refusal == KU_OK) {
        refusal = key_update_pending(tls, update_type);
    }
    if (refusal == KU_OK) {
        refusal = data_pending(tls);
    }
    if (refusal == KU_OK && !tls->libssl->ktls_can_rekey && ku_keys_in_kernel(tls)) {
        refusal = KU_KERNEL_TLS;
    }
    return ku_refused(refusal);
}

/* SSL_renegotiate() succeeds in all these cases (can_renegotiate() looks only at the
   version and the option, ssl_lib.c 2860), and then: without RFC 5746 the error is
   fatal; during a renegotiation the next I/O waits for a message that never comes;
   after a close_notify of either side nobody answers. */
static enum ku_refusal
renegotiation_state(const struct ku_tls *tls)
{
    int shutdown = tls->libssl->SSL_get_shutdown(tls->ssl);
    if (shutdown & SSL_SENT_SHUTDOWN) {
        return KU_CLOSE_SENT;
    }
    if (shutdown & SSL_RECEIVED_SHUTDOWN) {
        return KU_CLOSE_RECEIVED;
    }
    if (tls->libssl->SSL_get_options(tls->ssl) & SSL_OP_NO_RENEGOTIATION) {
        return KU_FORBIDDEN;
    }
    if (tls->libssl->SSL_ctrl(tls->ssl, SSL_CTRL_GET_RI_SUPPORT, 0, NULL) != 1) {
        return KU_INSECURE;
    }
    if (!tls->libssl->SSL_is_init_finished(tls->ssl) || ku_renegotiates(tls)) {
        return KU_RENEGOTIATING;
    }
    /* This would do no harm (the renegotiation would begin after the write), but
       "scheduled" would then not mean "the next I/O performs it". */
    if (tls->libssl->SSL_want(tls->ssl) == SSL_WRITING) {
        return KU_WRITE_PENDING;
    }
    /* A client's next write would end the connection over unread data
       (UNEXPECTED_RECORD).  And if the half-read record is the server's own
       HelloRequest, OpenSSL renegotiates once but keeps its note to do so: it then
       waits for a server that has nothing to say (ssl3_renegotiate_check() does nothing
       while a record is half read, s3_lib.c). */
    if (!tls->libssl->SSL_is_server(tls->ssl)
        && tls->libssl->SSL_has_pending(tls->ssl)) {
        return KU_READ_PENDING;
    }
    /* No kernel changes TLS 1.2 keys on a live connection. */
    return ku_keys_in_kernel(tls) ? KU_KERNEL_TLS : KU_OK;
}

struct ku_outcome
ku_check_renegotiation(const struct ku_tls *tls)
{
    enum ku_refusal refusal = ku_connection_state(tls);
    int version = tls->libssl->SSL_version(tls->ssl);
    if (refusal == KU_OK && (version < SSL3_VERSION || version > TLS1_2_VERSION)) {
        return ku_refused_because(KU_NEEDS_TLS12,
                                  tls->libssl->SSL_get_version(tls->ssl));
    }
    return ku_refused(refusal == KU_OK ? renegotiation_state(tls) : refusal);
}

struct ku_outcome
ku_schedule_key_update(const struct ku_tls *tls, int update_type)
{
    if (tls->libssl->SSL_key_update == NULL) {
        return ku_refused_because(KU_MISSING, "SSL_key_update");
    }
    struct ku_outcome may = ku_check_key_update(tls, update_type);
    if (may.refusal != KU_OK) {
        return may;
    }
    tls->libssl->ERR_clear_error();
    return ku_scheduled(tls->libssl,
                        tls->libssl->SSL_key_update(tls->ssl, update_type));
}

struct ku_outcome
ku_schedule_renegotiation(const struct ku_tls *tls, int abbreviated)
{
    int (*function)(SSL *) = abbreviated ? tls->libssl->SSL_renegotiate_abbreviated
                                         : tls->libssl->SSL_renegotiate;
    if (function == NULL) {
        return ku_refused_because(KU_MISSING, abbreviated
                                                  ? "SSL_renegotiate_abbreviated"
                                                  : "SSL_renegotiate");
    }
    struct ku_outcome may = ku_check_renegotiation(tls);
    if (may.refusal != KU_OK) {
        return may;
    }
    tls->libssl->ERR_clear_error();
    return ku_scheduled(tls->libssl, function(tls->ssl));
}
