#include "openssl/questions.h"

#include "openssl/constants.h"
#include "openssl/states.h"

int
ku_is_tls13(const struct ku_tls *tls)
{
    return tls->libssl->SSL_version(tls->ssl) == TLS1_3_VERSION;
}

/* After a fatal error the state machine stays in its error state forever.  OpenSSL
   would still "schedule" a renegotiation, and would refuse a key update as "still in
   init", which sounds temporary. */
int
ku_has_failed(const struct ku_tls *tls)
{
    return ku_tls_state(tls) == KU_STATE_FAILED;
}

/* Have both Finished messages of a first handshake been exchanged?  "In init" alone
   cannot tell: it is also true during a renegotiation, while a key update is scheduled,
   and in the middle of a post-handshake message. */
int
ku_was_connected(const struct ku_tls *tls)
{
    char ignored[1];
    return tls->libssl->SSL_is_init_finished(tls->ssl)
           || (tls->libssl->SSL_get_finished(tls->ssl, ignored, 0) > 0
               && tls->libssl->SSL_get_peer_finished(tls->ssl, ignored, 0) > 0);
}

int
ku_pending_key_update(const struct ku_tls *tls)
{
    return tls->libssl->SSL_get_key_update_type != NULL
               ? tls->libssl->SSL_get_key_update_type(tls->ssl)
               : SSL_KEY_UPDATE_NONE;
}

int
ku_renegotiates(const struct ku_tls *tls)
{
    return tls->libssl->SSL_renegotiate_pending != NULL
           && tls->libssl->SSL_renegotiate_pending(tls->ssl);
}

int
ku_keys_in_kernel(const struct ku_tls *tls)
{
    if (tls->libssl->version < OPENSSL_3_0_0) {
        return 0;
    }
    BIO *reads = tls->libssl->SSL_get_rbio(tls->ssl),
        *writes = tls->libssl->SSL_get_wbio(tls->ssl);
    return (writes != NULL
            && tls->libssl->BIO_ctrl(writes, BIO_CTRL_GET_KTLS_SEND, 0, NULL) > 0)
           || (reads != NULL
               && tls->libssl->BIO_ctrl(reads, BIO_CTRL_GET_KTLS_RECV, 0, NULL) > 0);
}
