/* Constants from OpenSSL's public headers, which we build without.  They are the same
   from 1.1.1 to 4.0 unless noted.  Those that only Python's ssl has are PY_*. */
#ifndef PYKEYUPDATE_CONSTANTS_H
#define PYKEYUPDATE_CONSTANTS_H

#include <stdint.h>

/* OpenSSL_version_num() */
#define OPENSSL_1_1_1 0x1010100fUL
#define OPENSSL_1_1_1L 0x101010cfUL
#define OPENSSL_3_0_0 0x30000000UL
#define OPENSSL_3_2_0 0x30200000UL

/* RFC 9846 section 5.1, and RFC 5246 section 6.2. */
#define TLS_MAX_PLAINTEXT 16384 /* bytes: most in a record, or one SSL_read() */

/* ssl.PROTOCOL_TLS_* */
#define PY_PROTOCOL_TLS_CLIENT 16
#define PY_PROTOCOL_TLS_SERVER 17

/* SSL_version() */
#define SSL3_VERSION 0x0300
#define TLS1_2_VERSION 0x0303
#define TLS1_3_VERSION 0x0304

/* SSL_key_update() */
#define SSL_KEY_UPDATE_NONE (-1)
#define SSL_KEY_UPDATE_NOT_REQUESTED 0
#define SSL_KEY_UPDATE_REQUESTED 1

/* SSL_get_error(); the same numbers as ssl.SSL_ERROR_* */
#define SSL_ERROR_NONE 0
#define SSL_ERROR_SSL 1
#define SSL_ERROR_WANT_READ 2
#define SSL_ERROR_WANT_WRITE 3
#define SSL_ERROR_SYSCALL 5
#define SSL_ERROR_ZERO_RETURN 6
#define PY_SSL_ERROR_EOF 8
#define PY_SSL_ERROR_NO_SOCKET 9

/* SSL_get_state(): of its numbers, only these are the same in all versions */
#define TLS_ST_BEFORE 0
#define TLS_ST_OK 1

/* SSL_want() */
#define SSL_WRITING 2
#define SSL_READING 3

/* SSL_get_shutdown() */
#define SSL_SENT_SHUTDOWN 1
#define SSL_RECEIVED_SHUTDOWN 2

/* SSL_get_options() */
#define SSL_OP_ALLOW_CLIENT_RENEGOTIATION ((uint64_t)1 << 8)
#define SSL_OP_NO_SESSION_RESUMPTION_ON_RENEGOTIATION ((uint64_t)1 << 16)
#define SSL_OP_NO_TLSv1_3 ((uint64_t)1 << 29)
#define SSL_OP_NO_RENEGOTIATION ((uint64_t)1 << 30)

/* SSL_get_verify_mode() */
#define SSL_VERIFY_PEER 1
#define SSL_VERIFY_POST_HANDSHAKE 8

/* SSL_ctrl() */
#define SSL_CTRL_GET_TOTAL_RENEGOTIATIONS 12
#define SSL_CTRL_SET_READ_AHEAD 41
#define SSL_CTRL_GET_RI_SUPPORT 76
#define SSL_CTRL_SET_MAX_PROTO_VERSION 124

/* SSL_set_info_callback() */
#define SSL_CB_LOOP 0x01
#define SSL_CB_HANDSHAKE_START 0x10
#define SSL_CB_HANDSHAKE_DONE 0x20
#define SSL_CB_ALERT 0x4000
#define SSL_CB_WRITE_ALERT 0x4008
#define SSL_CB_FATAL 2                 /* the level of an alert */
#define SSL_CB_CLOSE_NOTIFY 0x0100     /* a warning (1 << 8), alert 0 */
#define SSL_CB_NO_RENEGOTIATION 0x0164 /* a warning (1 << 8), alert 100 */

/* BIO_ctrl(), BIO_set_flags() and BIO_meth_new() */
#define BIO_CTRL_EOF 2
#define BIO_CTRL_PENDING 10
#define BIO_CTRL_FLUSH 11
#define BIO_CTRL_DUP 12
#define BIO_CTRL_WPENDING 13
#define BIO_CTRL_GET_KTLS_SEND 73 /* since 3.0; 1.1.1 has no kTLS */
#define BIO_CTRL_GET_KTLS_RECV 76
#define BIO_FLAGS_READ 0x01
#define BIO_FLAGS_WRITE 0x02
#define BIO_FLAGS_SHOULD_RETRY 0x08
#define BIO_FLAGS_RETRY (0x01 | 0x02 | 0x04 | 0x08) /* RWS and SHOULD_RETRY */
#define BIO_TYPE_MEM (1 | 0x0400)

/* CRYPTO_get_ex_new_index() */
#define CRYPTO_EX_INDEX_SSL 0

/* SSL_CIPHER_get_cipher_nid() */
#define NID_aes_128_ccm 896
#define NID_aes_192_ccm 899
#define NID_aes_256_ccm 902
#define NID_chacha20_poly1305 1018

/* ERR_GET_LIB() and ERR_GET_REASON(); reasons of the SSL library */
#define ERR_LIB_SSL 20
#define KU_ERROR_REASON(error) ((int)((error) & 0xfff))
#define SSL_R_INVALID_KEY_UPDATE_TYPE 120
#define SSL_R_BAD_WRITE_RETRY 127
#define SSL_R_TOO_MANY_KEY_UPDATES 132
#define SSL_R_CERTIFICATE_VERIFY_FAILED 134
#define SSL_R_WRONG_SSL_VERSION 266
#define SSL_R_UNINITIALIZED 276
#define SSL_R_EXTENSION_NOT_RECEIVED 279
#define SSL_R_REQUEST_PENDING 285
#define SSL_R_REQUEST_SENT 286
#define SSL_R_UNEXPECTED_EOF_WHILE_READING 294
#define SSL_R_NO_RENEGOTIATION 339

/* SSL_get_verify_result() */
#define X509_V_ERR_HOSTNAME_MISMATCH 62
#define X509_V_ERR_IP_ADDRESS_MISMATCH 64

#endif
