package main

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"reflect"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// wait is the deadline of every single wait for the broker.
const wait = 15 * time.Second

// failure ends a scenario from anywhere inside it; attempt turns it into the scenario's result.
type failure struct{ reason string }

func fail(format string, arguments ...any) {
	panic(failure{fmt.Sprintf(format, arguments...)})
}

func must(err error) {
	if err != nil {
		fail("%v", err)
	}
}

func value[T any](result T, err error) T {
	must(err)
	return result
}

func equal(what string, got, expected any) {
	if !reflect.DeepEqual(got, expected) {
		fail("%s: expected %#v, got %#v", what, expected, got)
	}
}

// receive takes one value from a channel of the client library within the deadline.
func receive[T any](what string, from <-chan T) T {
	select {
	case got, open := <-from:
		if !open {
			fail("the client closed its channel instead of sending %s", what)
		}
		return got
	case <-time.After(wait):
		fail("waited %v for %s", wait, what)
		panic("not reached")
	}
}

func receiveMany(what string, from <-chan amqp.Delivery, count int) []amqp.Delivery {
	got := make([]amqp.Delivery, 0, count)
	for len(got) < count {
		got = append(got, receive(what, from))
	}
	return got
}

func bodies(deliveries []amqp.Delivery) []string {
	texts := []string{}
	for _, delivery := range deliveries {
		texts = append(texts, string(delivery.Body))
	}
	return texts
}

func refused(what string, err error, code int, text string) {
	var closed *amqp.Error
	if !errors.As(err, &closed) {
		fail("%s: expected %d %s, got %v", what, code, text, err)
	}
	if closed.Code != code || closed.Reason != text {
		fail("%s: expected %d %q, got %d %q", what, code, text, closed.Code, closed.Reason)
	}
}

func text(body string) amqp.Publishing { return amqp.Publishing{Body: []byte(body)} }

func persistent(body string) amqp.Publishing {
	return amqp.Publishing{Body: []byte(body), DeliveryMode: amqp.Persistent}
}

func numbered(word string, count int) []string {
	texts := make([]string, count)
	for number := range texts {
		texts[number] = fmt.Sprintf("%s%d", word, number)
	}
	return texts
}

func publish(channel *amqp.Channel, exchange, key string, message amqp.Publishing) {
	must(channel.Publish(exchange, key, false, false, message))
}

func consume(channel *amqp.Channel, queue string, autoAck bool) <-chan amqp.Delivery {
	return value(channel.Consume(queue, "", autoAck, false, false, false, nil))
}

// drain takes everything that is ready and returns the bodies in order.
func drain(channel *amqp.Channel, queue string) []string {
	taken := []amqp.Delivery{}
	for {
		delivery, found, err := channel.Get(queue, true)
		must(err)
		if !found {
			return bodies(taken)
		}
		taken = append(taken, delivery)
	}
}

func ready(channel *amqp.Channel, queue string) int {
	return value(channel.QueueDeclarePassive(queue, true, false, false, false, nil)).Messages
}

// untilReady asks again and again until the broker has put back what a lost connection held.
func untilReady(channel *amqp.Channel, queue string, count int) {
	for giveUp := time.Now().Add(wait); ready(channel, queue) != count; {
		if time.Now().After(giveUp) {
			fail("waited %v for %d ready messages", wait, count)
		}
	}
}

// session holds one scenario's connections and names; closing it closes the former and deletes the latter.
type session struct {
	uri, scenario     string
	connections       []*amqp.Connection
	queues, exchanges []string
}

func dial(uri string, config amqp.Config) (*amqp.Connection, error) {
	if config.Dial == nil {
		config.Dial = amqp.DefaultDial(wait)
	}
	return amqp.DialConfig(uri, config)
}

func (s *session) connect(config amqp.Config) *amqp.Connection {
	connection := value(dial(s.uri, config))
	s.connections = append(s.connections, connection)
	return connection
}

func (s *session) channel() *amqp.Channel { return value(s.connect(amqp.Config{}).Channel()) }

func (s *session) user() string { return value(url.Parse(s.uri)).User.Username() }

func (s *session) name(what string) string {
	random := make([]byte, 6)
	_ = value(rand.Read(random))
	return fmt.Sprintf("interop.go.%s.%s.%s", s.scenario, what, hex.EncodeToString(random))
}

func (s *session) queue(channel *amqp.Channel, what string) string {
	name := s.name(what)
	s.queues = append(s.queues, name)
	equal("declared name", value(channel.QueueDeclare(name, true, false, false, false, nil)).Name, name)
	return name
}

func (s *session) exchange(channel *amqp.Channel, kind string) string {
	name := s.name(kind)
	s.exchanges = append(s.exchanges, name)
	must(channel.ExchangeDeclare(name, kind, true, false, false, false, nil))
	return name
}

func (s *session) close() {
	for _, connection := range s.connections {
		// One that the scenario has closed or broken answers with an error; that is no result.
		_ = connection.CloseDeadline(time.Now().Add(wait))
	}
	tidy := value(dial(s.uri, amqp.Config{}))
	channel := value(tidy.Channel())
	for _, queue := range s.queues {
		_ = value(channel.QueueDelete(queue, false, false, false))
	}
	for _, exchange := range s.exchanges {
		must(channel.ExchangeDelete(exchange, false, false))
	}
	must(tidy.Close())
}

// tap is a Dial function that keeps the socket, so that a scenario can cut it without a word of AMQP.
func tap(sockets *[]net.Conn) func(network, address string) (net.Conn, error) {
	return func(network, address string) (net.Conn, error) {
		socket, err := amqp.DefaultDial(wait)(network, address)
		if err == nil {
			*sockets = append(*sockets, socket)
		}
		return socket, err
	}
}

func pattern(size int) []byte {
	return bytes.Repeat([]byte("0123456789abcdefg"), size/17+1)[:size]
}
