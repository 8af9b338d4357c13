package main

import (
	"fmt"
	"os"
	"path/filepath"
)

// nginxServer is nginx with one worker that keeps connections to the backend, and
// checks nothing.
func nginxServer(tls bool, path string, size int) participant {
	return participant{"nginx, no check", func(b *bench) (*server, error) {
		program, err := find("nginx", "nginx-light")
		if err != nil {
			return nil, err
		}
		dir, err := b.folder("nginx")
		if err != nil {
			return nil, err
		}
		address, err := b.freeAddress()
		if err != nil {
			return nil, err
		}
		listen, scheme := address, "http"
		if tls {
			listen, scheme = fmt.Sprintf("%s ssl http2; ssl_certificate %s; ssl_certificate_key %s", address, b.cert.cert, b.cert.key), "https"
		}
		config := filepath.Join(dir, "nginx.conf")
		if err := os.WriteFile(config, fmt.Appendf(nil, nginxConfig, dir, dir, dir, dir, b.backend, listen), 0o600); err != nil {
			return nil, err
		}
		p, err := start(b.proxyCore, dir, nil, program, "-c", config, "-e", "stderr", "-g", "daemon off;")
		if err != nil {
			return nil, err
		}
		return b.ready(p, load{scheme: scheme, address: address, host: "app.localhost", path: path, size: size})
	}}
}

const nginxConfig = `worker_processes 1;
pid %s/nginx.pid;
events { worker_connections 16384; }
worker_rlimit_nofile 20000;
http {
	access_log off;
	client_body_temp_path %s;
	proxy_temp_path %s;
	fastcgi_temp_path %s;
	keepalive_requests 1000000000;
	upstream backend { server %s; keepalive 256; keepalive_requests 1000000000; }
	server {
		listen %s;
		location / {
			proxy_pass http://backend;
			proxy_http_version 1.1;
			proxy_set_header Connection "";
			proxy_set_header X-Forwarded-For $remote_addr;
		}
	}
}
`
