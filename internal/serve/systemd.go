package serve

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
)

// firstFile is the first file that systemd passes on (sd_listen_fds).
const firstFile = 3

// systemdListeners returns the listeners that systemd has opened for this process
// (socket activation). One is named after the key of the configuration it is for
// (`FileDescriptorName=server.listen`), or else found by its address.
func systemdListeners() (list []*listening, err error) {
	pid, count, names := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_FDNAMES")
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		os.Unsetenv(name) // they are not about any other process
	}
	if pid != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 || n > 64 {
		return nil, fmt.Errorf("LISTEN_FDS=%q is no number of listeners", count)
	}
	named := strings.Split(names, ":")
	for i := range n {
		key := ""
		if i < len(named) && strings.HasPrefix(named[i], "server.") {
			key = named[i]
		}
		l, err := inherit(firstFile+i, key, "")
		if err != nil {
			return nil, fmt.Errorf("the listener %d of systemd: %w", i+1, err)
		}
		l.kept = true
		list = append(list, l)
	}
	return list, nil
}

// tellSystemd tells the service manager how this process is doing (sd_notify),
// where there is one that asks.
func tellSystemd(log *slog.Logger, state ...string) {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err == nil {
		_, err = conn.Write([]byte(strings.Join(state, "\n")))
		conn.Close()
	}
	if err != nil {
		log.Warn("the service manager cannot be told", "state", state, "error", err)
	}
}
