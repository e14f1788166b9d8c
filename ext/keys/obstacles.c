#include "keys/obstacles.h"

#include "keys/ledgers.h"
#include "openssl/questions.h"

static void
note(struct ku_ledger *ledger, enum ku_cause cause)
{
    ku_ledgers_lock();
    ledger->obstacle = (unsigned char)cause;
    ku_ledgers_unlock();
}

/* What does not pass by itself: scheduling.c has all that is in the way at a moment. */
static enum ku_cause
obstacle_of(const struct ku_tls *tls)
{
    if (ku_is_tls13(tls)) {
        return KU_CAUSE_END;
    }
    if (!tls->ledger->rules.renegotiate) {
        return KU_CAUSE_NOT_ALLOWED;
    }
    if (tls->libssl->SSL_get_options(tls->ssl) & SSL_OP_NO_RENEGOTIATION) {
        return KU_CAUSE_FORBIDDEN;
    }
    return tls->libssl->SSL_ctrl(tls->ssl, SSL_CTRL_GET_RI_SUPPORT, 0, NULL) == 1
               ? KU_CAUSE_END
               : KU_CAUSE_INSECURE;
}

void
ku_note_obstacle(const struct ku_tls *tls)
{
    struct ku_ledger *ledger = tls->ledger;
    if (ledger->connected && ledger->obstacle != KU_CAUSE_ENDED
        && ledger->obstacle != KU_CAUSE_CLOSE_RECEIVED) {
        note(ledger, obstacle_of(tls));
    }
}

void
ku_note_lasting_obstacle(struct ku_ledger *ledger, enum ku_cause cause)
{
    if (ledger->connected && ledger->obstacle != KU_CAUSE_ENDED) {
        note(ledger, cause);
    }
}
