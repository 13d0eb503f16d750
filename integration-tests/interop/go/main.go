// Runs the scenarios named on the command line against the broker at WARREN_AMQP_URI and prints one line for each.
package main

import (
	"fmt"
	"os"
	"strings"
	"time"
)

const scenarioLimit = 40 * time.Second

var scenarios = map[string]func(*session){
	"hello_world":         helloWorld,
	"work_queue":          workQueue,
	"publish_subscribe":   publishSubscribe,
	"routing":             routing,
	"topics":              topics,
	"rpc":                 rpc,
	"confirms_individual": confirmsIndividual,
	"confirms_batch":      confirmsBatch,
	"confirms_async":      confirmsAsync,
	"mandatory_return":    mandatoryReturn,
	"consumer_cancel":     consumerCancel,
	"channel_error":       channelError,
	"connection_error":    connectionError,
	"reconnect":           reconnect,
	"requeue":             requeue,
	"basic_get":           basicGet,
	"properties":          properties,
	"large_message":       largeMessage,
	"tls":                 overTLS,
	"tls_certificate":     tlsCertificate,
}

// guarded runs a step of a scenario and gives the reason why it failed, or "".
func guarded(step func()) (reason string) {
	defer func() {
		switch caught := recover().(type) {
		case nil:
		case failure:
			reason = caught.reason
		default:
			reason = fmt.Sprint("panic: ", caught)
		}
	}()
	step()
	return ""
}

func attempt(uri, name string) string {
	scenario, known := scenarios[name]
	if !known {
		return "no such scenario here"
	}
	s := &session{uri: uri, scenario: name}
	outcome := make(chan string, 1)
	go func() {
		reason := guarded(func() { scenario(s) })
		tidying := guarded(s.close)
		if reason == "" {
			reason = tidying
		}
		outcome <- reason
	}()
	select {
	case reason := <-outcome:
		return reason
	case <-time.After(scenarioLimit):
		return fmt.Sprintf("did not end within %v", scenarioLimit)
	}
}

func main() {
	status := 0
	for _, name := range os.Args[1:] {
		if reason := attempt(os.Getenv("WARREN_AMQP_URI"), name); reason != "" {
			fmt.Printf("FAIL %s: %s\n", name, strings.ReplaceAll(reason, "\n", " "))
			status = 1
		} else {
			fmt.Printf("ok %s\n", name)
		}
	}
	os.Exit(status)
}
