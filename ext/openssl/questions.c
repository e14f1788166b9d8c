#include "openssl/questions.h"

#include "openssl/constants.h"

#include <string.h>

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
int
ku_was_connected(const struct ku_libssl *libssl, SSL *ssl)
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
int
ku_keys_in_kernel(const struct ku_libssl *libssl, SSL *ssl)
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
