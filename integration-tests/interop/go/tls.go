package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"

	amqp "github.com/rabbitmq/amqp091-go"
)

// The same over TLS: at WARREN_TLS_PORT, with the certificates in WARREN_TLS_FILES.

func tlsFile(name string) string { return filepath.Join(os.Getenv("WARREN_TLS_FILES"), name) }

func trusting(authority string) *tls.Config {
	pool := x509.NewCertPool()
	equal("an authority", pool.AppendCertsFromPEM(value(os.ReadFile(tlsFile(authority)))), true)
	return &tls.Config{RootCAs: pool, ServerName: "localhost"}
}

func (s *session) tlsURI() string {
	uri := value(amqp.ParseURI(s.uri))
	return "amqps://" + uri.Username + ":" + uri.Password + "@localhost:" + os.Getenv("WARREN_TLS_PORT") + "/"
}

func thereAndBack(s *session, connection *amqp.Connection) {
	channel := value(connection.Channel())
	queue := s.queue(channel, "queue")
	inbox := consume(channel, queue, true)
	// Larger than a record of TLS and than a frame of AMQP.
	body := pattern(500_000)
	publish(channel, "", queue, amqp.Publishing{Body: body})
	equal("body", bytes.Equal(receive("the message", inbox).Body, body), true)
}

func overTLS(s *session) {
	connection := value(dial(s.tlsURI(), amqp.Config{TLSClientConfig: trusting("ca.pem")}))
	s.connections = append(s.connections, connection)
	thereAndBack(s, connection)
	if _, err := dial(s.tlsURI(), amqp.Config{TLSClientConfig: trusting("stranger.pem")}); err == nil {
		fail("a broker was trusted that nobody vouches for")
	}
	thereAndBack(s, s.connect(amqp.Config{}))
}

func tlsCertificate(s *session) {
	external := []amqp.Authentication{&amqp.ExternalAuth{}}
	config := trusting("ca.pem")
	config.Certificates = []tls.Certificate{value(tls.LoadX509KeyPair(tlsFile("client.pem"), tlsFile("client.key")))}
	connection := value(dial(s.tlsURI(), amqp.Config{TLSClientConfig: config, SASL: external}))
	s.connections = append(s.connections, connection)
	thereAndBack(s, connection)
	if _, err := dial(s.tlsURI(), amqp.Config{TLSClientConfig: trusting("ca.pem"), SASL: external}); err == nil {
		fail("somebody without a certificate was let in by it")
	}
}
