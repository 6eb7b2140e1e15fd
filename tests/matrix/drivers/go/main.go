// Drives github.com/nshafer/phx. What it is told and reports stands in tests/matrix/driver.py.
package main

import (
	"bufio"
	"encoding/json"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/nshafer/phx"
)

type command struct {
	Do      string
	As      string
	URL     string
	Token   string
	Beat    int
	Topic   string
	Event   string
	Payload any
}

var (
	writing  sync.Mutex
	sockets  = map[string]*phx.Socket{}
	channels = map[[2]string]*phx.Channel{}
)

func report(saw, socket string, details map[string]any) {
	line := map[string]any{"saw": saw, "as": socket}
	for key, value := range details {
		line[key] = value
	}
	writing.Lock()
	defer writing.Unlock()
	_ = json.NewEncoder(os.Stdout).Encode(line)
}

func failed(socket string, err error) bool {
	if err != nil {
		report("error", socket, map[string]any{"text": err.Error()})
	}
	return err != nil
}

func connect(c command) {
	address, err := url.Parse(c.URL + "?token=" + url.QueryEscape(c.Token))
	if failed(c.As, err) {
		return
	}
	socket := phx.NewSocket(address)
	if c.Beat > 0 {
		socket.HeartbeatInterval = time.Duration(c.Beat) * time.Millisecond
	}
	socket.OnOpen(func() { report("open", c.As, nil) })
	socket.OnClose(func() { report("closed", c.As, nil) })
	socket.OnError(func(err error) { failed(c.As, err) })
	sockets[c.As] = socket
	failed(c.As, socket.Connect())
}

func join(c command) {
	channel := sockets[c.As].Channel(c.Topic, map[string]string{})
	channels[[2]string{c.As, c.Topic}] = channel
	for _, event := range []string{"said", "presence_state", "presence_diff"} {
		channel.On(event, func(payload any) {
			report("heard", c.As, map[string]any{"topic": c.Topic, "event": event, "payload": payload})
		})
	}
	channel.OnJoin(func(response any) {
		report("joined", c.As, map[string]any{"topic": c.Topic, "response": response})
	})
	push, err := channel.Join()
	if failed(c.As, err) {
		return
	}
	push.Receive("error", func(response any) {
		report("refused", c.As, map[string]any{"topic": c.Topic, "response": response})
		_, _ = channel.Leave() // or it would try again for ever
	})
}

func push(c command) {
	pushed, err := channels[[2]string{c.As, c.Topic}].Push(c.Event, c.Payload)
	if failed(c.As, err) {
		return
	}
	for _, status := range []string{"ok", "error"} {
		pushed.Receive(status, func(response any) {
			report("answer", c.As, map[string]any{"status": status, "response": response})
		})
	}
}

func leave(c command) {
	pushed, err := channels[[2]string{c.As, c.Topic}].Leave()
	if !failed(c.As, err) {
		pushed.Receive("ok", func(any) { report("left", c.As, nil) })
	}
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var c command
		if json.Unmarshal(lines.Bytes(), &c) != nil {
			continue
		}
		switch c.Do {
		case "connect":
			connect(c)
		case "join":
			join(c)
		case "push":
			push(c)
		case "leave":
			leave(c)
		case "close":
			_ = sockets[c.As].Disconnect()
		}
	}
}
