"""Run one server: python mail_and_file_servers.py smtp|imap|pop|ftp PEM

It prints its port, and ends when its standard input does. Its TLS is pyOpenSSL's, and
clients may begin a renegotiation.
"""

import os
import sys
import threading

ALLOW_CLIENT_RENEGOTIATION = 1 << 8


def tls_context(pem):
    from OpenSSL import SSL

    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_certificate_chain_file(pem)
    context.use_privatekey_file(pem)
    context.set_options(ALLOW_CLIENT_RENEGOTIATION)
    return context


def mail(name, pem):
    from twisted.internet import defer, reactor, ssl
    from twisted.internet.protocol import Factory
    from twisted.mail import imap4, pop3, smtp
    from zope.interface import implementer

    class Contexts(ssl.ContextFactory):
        def getContext(self):
            return tls_context(pem)

    @implementer(smtp.IMessage)
    class Message:
        def lineReceived(self, line):
            pass

        def eomReceived(self):
            return defer.succeed(None)

        def connectionLost(self):
            pass

    @implementer(smtp.IMessageDelivery)
    class Delivery:
        def receivedHeader(self, *_):
            return b"Received: here"

        def validateFrom(self, helo, origin):
            return origin

        def validateTo(self, user):
            return Message

    class Protocols(Factory):
        def buildProtocol(self, address):
            if name == "smtp":
                protocol = smtp.ESMTP(contextFactory=Contexts())
                protocol.delivery = Delivery()
            else:
                protocol = imap4.IMAP4Server() if name == "imap" else pop3.POP3()
            protocol.factory = self
            return protocol

    if name == "smtp":
        port = reactor.listenTCP(0, Protocols(), interface="127.0.0.1")
    else:
        port = reactor.listenSSL(0, Protocols(), Contexts(), interface="127.0.0.1")
    print(port.getHost().port, flush=True)
    reactor.run(installSignalHandlers=False)


def files(pem):
    from pyftpdlib.authorizers import DummyAuthorizer
    from pyftpdlib.handlers import TLS_FTPHandler
    from pyftpdlib.servers import FTPServer

    class Handler(TLS_FTPHandler):
        certfile = pem
        authorizer = DummyAuthorizer()

    Handler.authorizer.add_user("user", "password", os.getcwd(), perm="elradfmwMT")
    Handler.ssl_context = tls_context(pem)
    server = FTPServer(("127.0.0.1", 0), Handler)
    print(server.address[1], flush=True)
    server.serve_forever()


def end_with_the_test():
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=end_with_the_test, daemon=True).start()
    if sys.argv[1] == "ftp":
        files(sys.argv[2])
    else:
        mail(*sys.argv[1:])
