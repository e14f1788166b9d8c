/* The libssl that _ssl uses, as a table of functions. */
#ifndef PYKEYUPDATE_LIBSSL_H
#define PYKEYUPDATE_LIBSSL_H

#include <Python.h>
#include <stdint.h>

/* Opaque, as in OpenSSL's own headers since 1.1.0.  We build without those headers, so
   one binary serves OpenSSL 1.1.1 to 4.0. */
typedef struct ssl_st SSL;
typedef struct bio_st BIO;
typedef struct bio_method_st BIO_METHOD;
typedef struct ssl_cipher_st SSL_CIPHER;
typedef struct ssl_session_st SSL_SESSION;

/* clang-format off */

/* The five controls, and the function that asks a client for its certificate.  A
   library may lack one of them: its entry is then NULL, and calling it from Python
   raises NotImplementedError.  Prototypes as in SSL_key_update(3) and
   SSL_verify_client_post_handshake(3), unchanged from 1.1.1b to 4.0. */
#define KU_CONTROLS(X)                                            \
    X(int, SSL_key_update, (SSL *, int))                          \
    X(int, SSL_get_key_update_type, (const SSL *))                \
    X(int, SSL_renegotiate, (SSL *))                              \
    X(int, SSL_renegotiate_abbreviated, (SSL *))                  \
    X(int, SSL_renegotiate_pending, (const SSL *))                \
    X(int, SSL_verify_client_post_handshake, (SSL *))

/* Called to tell states (states.c).  A library has the first, or the others: a static
   link of _ssl leaves SSL_state_string() out, as _ssl does not call it, but can show a
   private function, by its symbol table.  A shared libssl is the other way round. */
#define KU_STATES(X)                                              \
    X(const char *, SSL_state_string, (const SSL *))              \
    X(int, SSL_get_state, (const SSL *))                          \
    X(int, ossl_statem_in_error, (const SSL *))

/* Called to check preconditions.  Every OpenSSL since 1.1.0 has them. */
#define KU_QUESTIONS(X)                                           \
    X(void *, SSL_get_ex_data, (const SSL *, int))                \
    X(int, SSL_is_init_finished, (const SSL *))                   \
    X(size_t, SSL_get_finished, (const SSL *, void *, size_t))    \
    X(size_t, SSL_get_peer_finished, (const SSL *, void *, size_t)) \
    X(int, SSL_is_server, (const SSL *))                          \
    X(int, SSL_version, (const SSL *))                            \
    X(const char *, SSL_get_version, (const SSL *))               \
    X(int, SSL_get_shutdown, (const SSL *))                       \
    X(int, SSL_want, (const SSL *))                               \
    X(int, SSL_has_pending, (const SSL *))                        \
    X(int, SSL_free_buffers, (SSL *))                             \
    X(uint64_t, SSL_get_options, (const SSL *))                   \
    X(long, SSL_ctrl, (SSL *, int, long, void *))                 \
    X(BIO *, SSL_get_rbio, (const SSL *))                         \
    X(BIO *, SSL_get_wbio, (const SSL *))

/* Called by handshake steps and for managed connections.  Every OpenSSL since 1.1.1 has
   them. */
#define KU_STEPS(X)                                               \
    X(int, SSL_read_ex, (SSL *, void *, size_t, size_t *))        \
    X(int, SSL_write_ex, (SSL *, const void *, size_t, size_t *)) \
    X(int, SSL_pending, (const SSL *))                            \
    X(int, SSL_do_handshake, (SSL *))                             \
    X(int, SSL_shutdown, (SSL *))                                 \
    X(void, SSL_set_bio, (SSL *, BIO *, BIO *))                   \
    X(int, SSL_peek, (SSL *, void *, int))                        \
    X(int, SSL_get_error, (const SSL *, int))                     \
    X(long, SSL_get_verify_result, (const SSL *))                 \
    X(int, SSL_get_verify_mode, (const SSL *))                    \
    X(void, SSL_set_verify, (SSL *, int, int (*)(int, void *)))   \
    X(uint64_t, SSL_set_options, (SSL *, uint64_t))

/* Called for ledgers (keys/).  Every OpenSSL since 1.1.1 has them. */
#define KU_LEDGER(X)                                             \
    X(int, SSL_set_ex_data, (SSL *, int, void *))                 \
    X(void, SSL_set_info_callback,                                \
      (SSL *, void (*)(const SSL *, int, int)))                   \
    X(void, SSL_set_shutdown, (SSL *, int))                       \
    X(uint64_t, SSL_clear_options, (SSL *, uint64_t))             \
    X(const SSL_CIPHER *, SSL_get_current_cipher, (const SSL *))  \
    X(int, SSL_CIPHER_get_cipher_nid, (const SSL_CIPHER *))       \
    X(int, SSL_CIPHER_is_aead, (const SSL_CIPHER *))              \
    X(const char *, SSL_CIPHER_get_name, (const SSL_CIPHER *))    \
    X(SSL_SESSION *, SSL_get_session, (const SSL *))              \
    X(uint8_t, SSL_SESSION_get_max_fragment_length, (const SSL_SESSION *))

/* Called to prove the states (states.c).  Every OpenSSL since 1.1.1 has them. */
#define KU_PROOF(X)                                               \
    X(int, SSL_set_ciphersuites, (SSL *, const char *))           \
    X(int, SSL_set_session_id_context,                            \
      (SSL *, const unsigned char *, unsigned int))               \
    X(const SSL_CIPHER *, SSL_CIPHER_find, (SSL *, const unsigned char *)) \
    X(SSL_SESSION *, SSL_SESSION_new, (void))                     \
    X(void, SSL_SESSION_free, (SSL_SESSION *))                    \
    X(int, SSL_SESSION_set1_master_key,                           \
      (SSL_SESSION *, const unsigned char *, size_t))             \
    X(int, SSL_SESSION_set_cipher, (SSL_SESSION *, const SSL_CIPHER *)) \
    X(int, SSL_SESSION_set_protocol_version, (SSL_SESSION *, int)) \
    X(void, SSL_set_psk_use_session_callback,                     \
      (SSL *, int (*)(SSL *, const void *, const unsigned char **, \
                      size_t *, SSL_SESSION **)))                 \
    X(void, SSL_set_psk_find_session_callback,                    \
      (SSL *, int (*)(SSL *, const unsigned char *, size_t,       \
                      SSL_SESSION **)))

/* From libcrypto.  Every OpenSSL since 1.1.1 has them. */
#define KU_CRYPTO(X)                                              \
    X(int, CRYPTO_get_ex_new_index,                               \
      (int, long, void *, void *,                                 \
       int (*)(void *, const void *, void *, int, long, void *),  \
       void (*)(void *, void *, void *, int, long, void *)))      \
    X(unsigned long, OpenSSL_version_num, (void))                 \
    X(const char *, OpenSSL_version, (int))                       \
    X(void, ERR_clear_error, (void))                              \
    X(unsigned long, ERR_peek_last_error, (void))                 \
    X(const char *, ERR_lib_error_string, (unsigned long))        \
    X(const char *, ERR_reason_error_string, (unsigned long))     \
    X(const char *, X509_verify_cert_error_string, (long))        \
    X(long, BIO_ctrl, (BIO *, int, long, void *))                 \
    X(int, BIO_write, (BIO *, const void *, int))                 \
    X(BIO_METHOD *, BIO_meth_new, (int, const char *))            \
    X(int, BIO_meth_set_read, (BIO_METHOD *, int (*)(BIO *, char *, int))) \
    X(int, BIO_meth_set_write, (BIO_METHOD *, int (*)(BIO *, const char *, int))) \
    X(int, BIO_meth_set_ctrl, (BIO_METHOD *, long (*)(BIO *, int, long, void *))) \
    X(int, BIO_meth_set_destroy, (BIO_METHOD *, int (*)(BIO *)))  \
    X(BIO *, BIO_new, (const BIO_METHOD *))                       \
    X(const char *, BIO_method_name, (const BIO *))               \
    X(void *, BIO_get_data, (BIO *))                              \
    X(void, BIO_set_data, (BIO *, void *))                        \
    X(void, BIO_set_init, (BIO *, int))                           \
    X(void, BIO_set_flags, (BIO *, int))                          \
    X(void, BIO_clear_flags, (BIO *, int))

/* All, in the order of struct ku_libssl: those that may be missing come first. */
#define KU_OPTIONAL(X) KU_CONTROLS(X) KU_STATES(X)
#define KU_REQUIRED(X) KU_QUESTIONS(X) KU_STEPS(X) KU_LEDGER(X) KU_PROOF(X)
#define KU_FUNCTIONS(X) KU_OPTIONAL(X) KU_REQUIRED(X) KU_CRYPTO(X)

/* clang-format on */

enum ku_side { KU_CLIENT, KU_SERVER };

struct ku_libssl {
#define KU_MEMBER(result, name, arguments) result(*name) arguments;
    KU_FUNCTIONS(KU_MEMBER)
#undef KU_MEMBER
    unsigned long version; /* OpenSSL_version_num(): 0xMNN00PP0, 0x101010PPf */
    int ktls_can_rekey;    /* this OpenSSL and this kernel can change kTLS keys */
    /* SSL_get_state() on a side that has built, or read, a KeyUpdate message, and on a
       client that has read a NewSessionTicket, or sent its ClientHello; learnt at import
       (states.c) where SSL_state_string() is missing. */
    int sent_key_update[2], read_key_update[2], read_ticket, sent_hello;
};

/* Bind the table to the libssl that the interpreter's `_ssl` uses.  Returns a new dict
   that describes it (`_keyupdate.libssl`), or NULL with an exception: ImportError if
   pykeyupdate cannot work here.  `_ssl` must have made a connection before. */
PyObject *ku_libssl_bind(struct ku_libssl *libssl, PyObject *_ssl);

/* A new dict of the functions' addresses, by name; 0 for those that are missing. */
PyObject *ku_libssl_addresses(const struct ku_libssl *libssl);

#endif
