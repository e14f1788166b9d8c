"""RFC 5746 (renegotiation_info): every sentence with a keyword in sections 3, 4 and 5.

"Abort the handshake" is short for "send a fatal handshake_failure alert and terminate
the connection" (section 3.4).
"""

from . import NOT_APPLICABLE, OPENSSL, Requirement

ENTRIES = {
    "3.4": 4,
    "3.5": 5,
    "3.6": 6,
    "3.7": 4,
    "4.1": 1,
    "4.2": 6,
    "4.3": 1,
    "4.4": 4,
    "4.5": 3,
    "5": 2,
}
# how often the source has each in a section
KEYWORDS = {
    "3.4": {"MUST": 4, "NOT RECOMMENDED": 1},
    "3.5": {"MUST": 5, "MUST NOT": 1},
    "3.6": {"MUST": 8},
    "3.7": {"MUST": 7},
    "4.1": {"MUST": 1},
    "4.2": {"MUST": 5, "RECOMMENDED": 1, "NOT RECOMMENDED": 1},
    "4.3": {"MUST": 1},
    "4.4": {"MUST": 5, "RECOMMENDED": 1},
    "4.5": {"MUST": 2, "SHOULD": 1},
    "5": {"SHOULD NOT": 1, "SHOULD": 1},
}

TEST = "test_secure_renegotiation.py::"
FIRST = TEST + "test_the_first_handshake_offers_it_in_one_way_and_grants_it"
RESUMING = TEST + "test_so_does_a_first_handshake_that_resumes_a_session"
CARRIES = TEST + "test_a_renegotiation_carries_the_last_finished_messages"
GRANTS = TEST + "test_a_server_grants_what_is_offered"
SERVER_VERIFIES = TEST + "test_a_server_verifies_the_hello_of_a_renegotiation"
CLIENT_VERIFIES = TEST + "test_a_client_verifies_the_hello_of_a_renegotiation"
WE_DO_NOT_BEGIN = TEST + "test_we_do_not_begin_with_a_peer_without_it"
SERVER_DOES_NOT_FOLLOW = TEST + "test_a_server_does_not_follow_a_client_without_it"
CLIENT_MUST_NOT = (
    TEST + "test_a_client_that_must_not_renegotiate_does_not_follow_a_server_without_it"
)
LIMITS_SAY_NEVER = (
    TEST + "test_limits_that_say_never_keep_a_client_from_following_a_server_without_it"
)
ON_ITS_GUARD = TEST + "test_a_client_that_follows_such_a_server_is_on_its_guard"

ANOTHER_ALERT = (
    "OpenSSL's clients end the connection with illegal_parameter where the RFC has "
    "handshake_failure."
)
UNSAFE_OPTION = (
    NOT_APPLICABLE + "OpenSSL permits it with SSL_OP_ALLOW_UNSAFE_LEGACY_RENEGOTIATION "
    "alone, for which the ssl module has no name."
)
SSL3 = (
    NOT_APPLICABLE + "no libssl that Python 3.9 can use has SSLv3, unless built for it."
)

REQUIREMENTS = [
    # -- 3.4. Client behavior: initial handshake
    Requirement(
        "3.4",
        'The client MUST include either an empty "renegotiation_info" extension, or '
        "the TLS_EMPTY_RENEGOTIATION_INFO_SCSV signaling cipher suite value in the "
        "ClientHello.",
        met_by=(OPENSSL,),
        tests=(FIRST, RESUMING),
    ),
    Requirement(
        "3.4",
        "Including both is NOT RECOMMENDED.",
        met_by=(OPENSSL,),
        tests=(FIRST, RESUMING),
    ),
    Requirement(
        "3.4",
        "When a ServerHello is received, the client MUST check if it includes the "
        '"renegotiation_info" extension:',
        met_by=(OPENSSL, "secure_renegotiation_step", "renegotiation_state"),
        tests=(
            TEST + "test_a_server_without_it_is_refused",
            WE_DO_NOT_BEGIN,
            "test_renegotiation.py::test_secure_renegotiation_is_what_was_negotiated",
            "test_gnutls.py::test_gnutls_serv_without_rfc_5746_is_not_asked",
        ),
        reason="Ours is to ask OpenSSL for the flag, and to begin no renegotiation "
        "without it.",
    ),
    Requirement(
        "3.4",
        'The client MUST then verify that the length of the "renegotiated_connection" '
        "field is zero, and if it is not, MUST abort the handshake (by sending a fatal "
        "handshake_failure alert).",
        met_by=(OPENSSL,),
        tests=(TEST + "test_a_first_server_hello_is_no_renegotiation",),
        reason=ANOTHER_ALERT,
    ),
    # -- 3.5. Client behavior: secure renegotiation
    Requirement(
        "3.5",
        'The client MUST include the "renegotiation_info" extension in the '
        "ClientHello, containing the saved client_verify_data.",
        met_by=(OPENSSL,),
        tests=(CARRIES,),
    ),
    Requirement(
        "3.5",
        "The SCSV MUST NOT be included.",
        met_by=(OPENSSL,),
        tests=(CARRIES,),
    ),
    Requirement(
        "3.5",
        "When a ServerHello is received, the client MUST verify that the "
        '"renegotiation_info" extension is present; if it is not, the client MUST '
        "abort the handshake.",
        met_by=(OPENSSL,),
        tests=(CLIENT_VERIFIES,),
        reason="Not met where OP_LEGACY_SERVER_CONNECT is set (as in OpenSSL 1.1.1 by "
        "itself): OpenSSL then goes on without it in a renegotiation, too.",
    ),
    Requirement(
        "3.5",
        "The client MUST then verify that the first half of the "
        '"renegotiated_connection" field is equal to the saved client_verify_data '
        "value, and the second half is equal to the saved server_verify_data value.",
        met_by=(OPENSSL,),
        tests=(CLIENT_VERIFIES,),
    ),
    Requirement(
        "3.5",
        "If they are not, the client MUST abort the handshake.",
        met_by=(OPENSSL,),
        tests=(CLIENT_VERIFIES,),
        reason=ANOTHER_ALERT,
    ),
    # -- 3.6. Server behavior: initial handshake
    Requirement(
        "3.6",
        "When a ClientHello is received, the server MUST check if it includes the "
        "TLS_EMPTY_RENEGOTIATION_INFO_SCSV SCSV.",
        met_by=(OPENSSL,),
        tests=(GRANTS, FIRST),
    ),
    Requirement(
        "3.6",
        'The server MUST check if the "renegotiation_info" extension is included in '
        "the ClientHello.",
        met_by=(OPENSSL,),
        tests=(GRANTS,),
    ),
    Requirement(
        "3.6",
        'The server MUST then verify that the length of the "renegotiated_connection" '
        "field is zero, and if it is not, MUST abort the handshake.",
        met_by=(OPENSSL,),
        tests=(TEST + "test_a_first_client_hello_is_no_renegotiation",),
    ),
    Requirement(
        "3.6",
        "If the secure_renegotiation flag is set to TRUE, the server MUST include an "
        'empty "renegotiation_info" extension in the ServerHello message.',
        met_by=(OPENSSL,),
        tests=(GRANTS, FIRST, RESUMING),
    ),
    Requirement(
        "3.6",
        "TLS servers implementing this specification MUST ignore any unknown "
        "extensions offered by the client and they MUST accept version numbers higher "
        "than their highest version number and negotiate the highest common version.",
        met_by=(OPENSSL,),
        tests=(TEST + "test_unknown_extensions_and_higher_versions_are_no_obstacle",),
    ),
    Requirement(
        "3.6",
        "TLS implementations MUST continue to comply with Section 7.4.1.4 for all "
        "other extensions.",
        met_by=(OPENSSL,),
        tests=(TEST + "test_a_server_sends_no_extension_that_was_not_offered",),
    ),
    # -- 3.7. Server behavior: secure renegotiation
    Requirement(
        "3.7",
        "When a ClientHello is received, the server MUST verify that it does not "
        "contain the TLS_EMPTY_RENEGOTIATION_INFO_SCSV SCSV. If the SCSV is present, "
        "the server MUST abort the handshake.",
        met_by=(OPENSSL,),
        tests=(SERVER_VERIFIES,),
    ),
    Requirement(
        "3.7",
        'The server MUST verify that the "renegotiation_info" extension is present; '
        "if it is not, the server MUST abort the handshake.",
        met_by=(OPENSSL,),
        tests=(SERVER_VERIFIES,),
    ),
    Requirement(
        "3.7",
        'The server MUST verify that the value of the "renegotiated_connection" field '
        "is equal to the saved client_verify_data value; if it is not, the server MUST "
        "abort the handshake.",
        met_by=(OPENSSL,),
        tests=(SERVER_VERIFIES,),
    ),
    Requirement(
        "3.7",
        'The server MUST include a "renegotiation_info" extension containing the saved '
        "client_verify_data and server_verify_data in the ServerHello.",
        met_by=(OPENSSL,),
        tests=(CARRIES,),
    ),
    # -- 4.1. Client considerations
    Requirement(
        "4.1",
        'Such clients MUST generate a fatal "handshake_failure" alert prior to '
        "terminating the connection.",
        met_by=(OPENSSL,),
        tests=(TEST + "test_a_server_without_it_is_refused",),
        reason="Such clients are those of OpenSSL 3 without OP_LEGACY_SERVER_CONNECT.",
    ),
    # -- 4.2. Client behavior: legacy (insecure) renegotiation
    Requirement(
        "4.2",
        "It is RECOMMENDED that clients refuse this renegotiation request.",
        met_by=("renegotiation_state", "PeerLimits"),
        tests=(
            LIMITS_SAY_NEVER,
            CLIENT_MUST_NOT,
            WE_DO_NOT_BEGIN,
            "test_gnutls.py::test_gnutls_serv_without_rfc_5746_is_refused",
        ),
        reason="Not met by default where a program sets OP_LEGACY_SERVER_CONNECT: "
        "OpenSSL's client then follows such a server's request (as "
        "test_a_client_that_follows_such_a_server_is_on_its_guard has it), managed or "
        "not, unless OP_NO_RENEGOTIATION is set or its PeerLimits say "
        'renegotiation="never".',
    ),
    Requirement(
        "4.2",
        'Clients that do so MUST respond to such requests with a "no_renegotiation" '
        'alert (RFC 5246 requires this alert to be at the "warning" level).',
        met_by=(OPENSSL,),
        tests=(
            LIMITS_SAY_NEVER,
            CLIENT_MUST_NOT,
            "test_gnutls.py::test_gnutls_serv_without_rfc_5746_is_refused",
        ),
    ),
    Requirement(
        "4.2",
        "If clients nevertheless choose to renegotiate, they MUST behave as described "
        "below.",
        met_by=(OPENSSL,),
        tests=(ON_ITS_GUARD,),
    ),
    Requirement(
        "4.2",
        "Clients that choose to renegotiate MUST provide either the "
        'TLS_EMPTY_RENEGOTIATION_INFO_SCSV SCSV or "renegotiation_info" in their '
        "ClientHello.",
        met_by=(OPENSSL,),
        tests=(ON_ITS_GUARD,),
    ),
    Requirement(
        "4.2",
        "Thus, it is permitted, though NOT RECOMMENDED, for the client to simply send "
        "the SCSV.",
        met_by=(OPENSSL,),
        tests=(ON_ITS_GUARD,),
    ),
    Requirement(
        "4.2",
        "When the ServerHello is received, the client MUST verify that it does not "
        'contain the "renegotiation_info" extension. If it does, the client MUST abort '
        "the handshake.",
        met_by=(OPENSSL,),
        tests=(ON_ITS_GUARD,),
        reason="Not met to the letter: one that has both Finished messages right is "
        "taken, which no attacker has. " + ANOTHER_ALERT,
    ),
    # -- 4.3. Server considerations
    Requirement(
        "4.3",
        "In order to enable clients to probe, even servers that do not support "
        "renegotiation MUST implement the minimal version of the extension described "
        "in this document for initial handshakes, thus signaling that they have been "
        "upgraded.",
        met_by=(OPENSSL,),
        tests=(TEST + "test_a_server_that_never_renegotiates_grants_it_too",),
    ),
    # -- 4.4. Server behavior: legacy (insecure) renegotiation
    Requirement(
        "4.4",
        "It is RECOMMENDED that servers not permit legacy renegotiation.",
        met_by=(OPENSSL, "renegotiation_state"),
        tests=(
            SERVER_DOES_NOT_FOLLOW,
            WE_DO_NOT_BEGIN,
            "test_gnutls.py::test_gnutls_cli_without_rfc_5746_is_not_asked",
        ),
    ),
    Requirement(
        "4.4",
        "If servers nevertheless do permit it, they MUST follow the requirements in "
        "this section.",
        reason=UNSAFE_OPTION,
    ),
    Requirement(
        "4.4",
        "When a ClientHello is received, the server MUST verify that it does not "
        "contain the TLS_EMPTY_RENEGOTIATION_INFO_SCSV SCSV. If the SCSV is present, "
        "the server MUST abort the handshake.",
        reason=UNSAFE_OPTION,
    ),
    Requirement(
        "4.4",
        'The server MUST verify that the "renegotiation_info" extension is not '
        "present; if it is, the server MUST abort the handshake.",
        reason=UNSAFE_OPTION,
    ),
    # -- 4.5. SSLv3
    Requirement(
        "4.5",
        "Clients that support SSLv3 and offer secure renegotiation (either via SCSV or "
        '"renegotiation_info") MUST accept the "renegotiation_info" extension from the '
        "server, even if the server version is {0x03, 0x00}, and behave as described "
        "in this specification.",
        reason=SSL3,
    ),
    Requirement(
        "4.5",
        "TLS servers that support secure renegotiation and support SSLv3 MUST accept "
        'SCSV or the "renegotiation_info" extension and respond as described in this '
        "specification even if the offered client version is {0x03, 0x00}.",
        reason=SSL3,
    ),
    Requirement(
        "4.5",
        "SSLv3 clients that refuse renegotiation SHOULD use a fatal handshake_failure "
        "alert.",
        reason=SSL3,
    ),
    # -- 5. Security considerations
    Requirement(
        "5",
        "Servers SHOULD NOT allow clients to renegotiate without using this extension.",
        met_by=(OPENSSL,),
        tests=(SERVER_DOES_NOT_FOLLOW, SERVER_VERIFIES),
    ),
    Requirement(
        "5",
        "TLS implementations SHOULD provide a mechanism to disable and enable "
        "renegotiation.",
        met_by=("PeerLimits", "allow_renegotiation"),
        tests=(
            "test_peer_limits.py::test_never",
            "test_peer_limits.py::test_once",
            "test_peer_limits.py::test_allowed_for_a_block",
            "test_peer_limits.py::test_options_are_as_before",
        ),
    ),
]
