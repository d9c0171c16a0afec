// Command load asks uWSGI over its own protocol, on unix sockets, with nothing in between: what NGINX does, and no more.
// wrk, which all else is measured with, speaks neither. Each of its clients asks again as soon as it is answered, each
// socket in turn, and opens a connection for each request, because the protocol knows no other way.
//
//	load -connections 64 -duration 5s -path / SOCKET …
//
// It prints one JSON object. Two loops on epoll serve all clients, as in wrk: with a goroutine for each it costs three
// times as much, and what should be the ceiling is below NGINX.
package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"sort"
	"sync"
	"syscall"
	"time"
)

const loops = 2

// What NGINX sends of a wrk request, see nginx/uwsgi_params.j2.
// https://uwsgi-docs.readthedocs.io/en/latest/Protocol.html
func packet(path string) []byte {
	variables := [][2]string{
		{"QUERY_STRING", ""}, {"REQUEST_METHOD", "GET"}, {"CONTENT_TYPE", ""}, {"CONTENT_LENGTH", ""},
		{"REQUEST_URI", path}, {"PATH_INFO", path}, {"SERVER_PROTOCOL", "HTTP/1.1"}, {"REQUEST_SCHEME", "http"},
		{"UWSGI_SCHEME", "http"}, {"REMOTE_ADDR", "127.0.0.1"}, {"REMOTE_PORT", "40000"}, {"SERVER_PORT", "8080"},
		{"SERVER_NAME", "localhost"}, {"HTTP_HOST", "127.0.0.1:8080"}, {"HTTP_X_REAL_IP", "127.0.0.1"},
		{"HTTP_X_FORWARDED_FOR", "127.0.0.1"}, {"HTTP_X_FORWARDED_HOST", "127.0.0.1:8080"},
		{"HTTP_X_FORWARDED_PROTO", "http"}, {"HTTP_X_REQUEST_ID", "0123456789abcdef0123456789abcdef"},
	}
	var body bytes.Buffer
	for _, variable := range variables {
		for _, text := range variable {
			_ = binary.Write(&body, binary.LittleEndian, uint16(len(text)))
			body.WriteString(text)
		}
	}
	head := []byte{0, 0, 0, 0}
	binary.LittleEndian.PutUint16(head[1:], uint16(body.Len()))
	return append(head, body.Bytes()...)
}

// Whether `answer`, the beginning of one, says 200.
func isGood(answer []byte) bool {
	_, rest, found := bytes.Cut(answer, []byte(" "))
	return found && bytes.HasPrefix(rest, []byte("200 "))
}

type client struct {
	turn     int
	begin    time.Time
	received int
}

type loop struct {
	sockets  []syscall.SockaddrUnix
	request  []byte
	epoll    int
	open     map[int32]*client
	buffer   []byte
	waits    []time.Duration
	bytes    int
	failures int
	failure  string
}

func (l *loop) fail(words string) {
	l.failures++
	l.failure = words
}

// ask opens the client's next connection and sends its request.
func (l *loop) ask(c *client) error {
	c.begin, c.received = time.Now(), 0
	socket := &l.sockets[c.turn%len(l.sockets)]
	c.turn++
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	event := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(fd)}
	if err = syscall.Connect(fd, socket); err == nil {
		if _, err = syscall.Write(fd, l.request); err == nil {
			err = syscall.EpollCtl(l.epoll, syscall.EPOLL_CTL_ADD, fd, &event)
		}
	}
	if err != nil {
		syscall.Close(fd)
		return fmt.Errorf("%s: %w", socket.Name, err)
	}
	l.open[int32(fd)] = c
	return nil
}

// take reads what is there; true when the answer is complete, or will never be.
func (l *loop) take(fd int, c *client) bool {
	for {
		read, err := syscall.Read(fd, l.buffer)
		switch {
		case err == syscall.EAGAIN:
			return false
		case err == syscall.EINTR:
			continue
		case err != nil:
			l.fail(err.Error())
			return true
		case read == 0:
			if c.received == 0 {
				l.fail("no answer")
			} else if c.received > 0 {
				l.bytes += c.received
				l.waits = append(l.waits, time.Since(c.begin))
			}
			return true
		case c.received == 0 && !isGood(l.buffer[:read]):
			l.fail(fmt.Sprintf("answer %q", l.buffer[:min(read, 80)]))
			c.received = -1 << 62 // the rest of it is read and not counted
		}
		c.received += read
	}
}

func (l *loop) run(clients []*client, end time.Time) error {
	var err error
	if l.epoll, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
		return err
	}
	idle := clients
	events := make([]syscall.EpollEvent, len(clients))
	for {
		running := time.Now().Before(end)
		var refused []*client
		for _, c := range idle {
			if !running {
				continue
			}
			if err := l.ask(c); err != nil {
				l.fail(err.Error())
				refused = append(refused, c)
			}
		}
		idle = append(idle[:0:0], refused...)
		if len(l.open) == 0 && !running {
			return nil
		}
		wait := 1000
		if len(refused) > 0 {
			wait = 1 // who refuses is not asked in a busy loop
		}
		ready, err := syscall.EpollWait(l.epoll, events, wait)
		if err != nil && err != syscall.EINTR {
			return err
		}
		for _, event := range events[:max(ready, 0)] {
			c := l.open[event.Fd]
			if l.take(int(event.Fd), c) {
				syscall.Close(int(event.Fd))
				delete(l.open, event.Fd)
				idle = append(idle, c)
			}
		}
		if !running && time.Since(end) > 10*time.Second {
			return fmt.Errorf("%d requests were not answered within 10 s", len(l.open))
		}
	}
}

func quantile(sorted []time.Duration, part float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(part*float64(len(sorted))), len(sorted)-1)].Seconds()
}

func main() {
	connections := flag.Int("connections", 64, "requests in flight")
	duration := flag.Duration("duration", 5*time.Second, "how long")
	path := flag.String("path", "/", "path to ask for")
	flag.Parse()
	if flag.NArg() == 0 {
		fmt.Fprintln(os.Stderr, "usage: load [-connections N] [-duration D] [-path P] SOCKET …")
		os.Exit(2)
	}
	debug.SetGCPercent(-1)
	var sockets []syscall.SockaddrUnix
	for _, name := range flag.Args() {
		sockets = append(sockets, syscall.SockaddrUnix{Name: name})
	}
	clients := make([][]*client, loops)
	for number := range *connections {
		clients[number%loops] = append(clients[number%loops], &client{turn: number / loops})
	}

	begin := time.Now()
	all := make([]loop, loops)
	var done sync.WaitGroup
	for number := range all {
		all[number] = loop{
			sockets: sockets, request: packet(*path), open: map[int32]*client{}, buffer: make([]byte, 256<<10),
		}
		done.Add(1)
		go func() {
			defer done.Done()
			runtime.LockOSThread()
			if err := all[number].run(clients[number], begin.Add(*duration)); err != nil {
				all[number].fail(err.Error())
			}
		}()
	}
	done.Wait()
	seconds := time.Since(begin).Seconds()

	var total loop
	for _, one := range all {
		total.waits = append(total.waits, one.waits...)
		total.bytes += one.bytes
		total.failures += one.failures
		total.failure += one.failure
	}
	sort.Slice(total.waits, func(one, other int) bool { return total.waits[one] < total.waits[other] })
	var used syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &used)
	_ = json.NewEncoder(os.Stdout).Encode(map[string]any{
		"requests":    len(total.waits),
		"failures":    total.failures,
		"failure":     total.failure,
		"bytes":       total.bytes,
		"seconds":     seconds,
		"p50":         quantile(total.waits, 0.50),
		"p99":         quantile(total.waits, 0.99),
		"cpu_seconds": float64(used.Utime.Nano()+used.Stime.Nano()) / 1e9,
	})
}
