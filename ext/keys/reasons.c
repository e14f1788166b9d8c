#include "keys/reasons.h"

#include "openssl/errors.h"

#define KU_NAME(number, name) #name,
const char *const ku_change_names[] = {KU_CHANGES(KU_NAME) NULL};
const char *const ku_limit_names[] = {KU_LIMITS(KU_NAME) NULL};
const char *const ku_cause_names[] = {KU_CAUSES(KU_NAME) NULL};
#undef KU_NAME

enum ku_cause
ku_cause_of(const struct ku_outcome *outcome)
{
    if (!ku_is_for_good(outcome)) {
        return KU_CAUSE_NOT_YET; /* and a hard limit cannot wait */
    }
    switch (outcome->refusal) {
    case KU_NOT_ALLOWED: return KU_CAUSE_NOT_ALLOWED;
    case KU_FORBIDDEN: return KU_CAUSE_FORBIDDEN;
    case KU_INSECURE: return KU_CAUSE_INSECURE;
    case KU_KERNEL_TLS: return KU_CAUSE_KERNEL_TLS;
    case KU_CLOSE_RECEIVED: return KU_CAUSE_CLOSE_RECEIVED;
    case KU_MISSING: return KU_CAUSE_MISSING;
    case KU_OPENSSL: return KU_CAUSE_OPENSSL;
    case KU_NEEDS_OWNER: return KU_CAUSE_NEEDS_OWNER;
    default: return KU_CAUSE_ENDED;
    }
}
