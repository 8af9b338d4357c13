package main

import "slices"

// http1 is the first table: what a check costs, one by one.
var http1 = benchCase{
	id:    "http1",
	title: "Plain HTTP/1.1, answers of 1 KiB",
	about: "64 connections that are kept, one request at a time on each. Doorward decides by five rules, signs an assertion for each session\n" +
		"and writes every request to its audit log; its sessions were written into the store by its own code before the start. mod_auth_openidc\n" +
		"and oauth2-proxy check a session that comes from a real login. The tokens are 2048-bit RS256 and ES256; ten thousand in rotation are\n" +
		"more than Doorward keeps results of, so each is verified each time. HAProxy verifies the signature and looks at nothing else, so that\n" +
		"a token that has expired or is for somebody else passes; only where the line says so it looks at the claims as well: algorithm,\n" +
		"issuer, audience and expiry. ReverseProxy is the Go standard library's.",
	run: func(b *bench) (*table, error) {
		list := slices.Concat(
			[]participant{
				nginxServer(false, smallPath, smallSize),
				haproxyServer(false, smallPath, smallSize),
				bareServer(false, smallPath, smallSize),
				haproxyVerifying("RS256"),
				haproxyAccepting("RS256"),
				haproxyVerifying("ES256"),
				apacheServer("server cache", "OIDCSessionType server-cache"),
				apacheServer("client cookie", "OIDCSessionType client-cookie"),
				oauth2ProxyServer(),
			},
			door{name: "Doorward, public path", asks: forNothing}.participants(),
			door{name: "Doorward, one session"}.participants(),
			door{name: "Doorward, 10,000 sessions in rotation", sessions: 10_000, rotation: 10_000}.participants(),
			door{name: "Doorward, the same token", asks: forRS256}.participants(),
			door{name: "Doorward, 10,000 tokens RS256", asks: forRS256, rotation: distinctTokens}.participants(),
			door{name: "Doorward, 10,000 tokens ES256", asks: forES256, rotation: distinctTokens}.participants(),
		)
		results, err := b.compare(list, b.wrk)
		if err != nil {
			return nil, err
		}
		return loadTable(results, bare+", no check", "HAProxy, RS256 verified each time", "HAProxy, RS256 and claims", "Doorward, one session"), nil
	},
}

var tlsHTTP1 = benchCase{
	id:    "tls1",
	title: "TLS, HTTP/1.1, answers of 1 KiB",
	about: "As above, over 64 TLS connections with a P-256 certificate; the backend is reached without TLS.",
	run:   func(b *bench) (*table, error) { return b.overTLS(b.wrk) },
}

var tlsHTTP2 = benchCase{
	id:    "tls2",
	title: "TLS, HTTP/2, answers of 1 KiB",
	about: "16 connections with 4 requests at a time on each; the backend is reached over HTTP/1.1 without TLS.",
	run:   func(b *bench) (*table, error) { return b.overTLS(b.h2load) },
}

func (b *bench) overTLS(generate generator) (*table, error) {
	list := slices.Concat(
		[]participant{nginxServer(true, smallPath, smallSize), haproxyServer(true, smallPath, smallSize), bareServer(true, smallPath, smallSize)},
		door{name: "Doorward, public path", tls: true, asks: forNothing}.participants(),
		door{name: "Doorward, one session", tls: true}.participants(),
	)
	results, err := b.compare(list, generate)
	if err != nil {
		return nil, err
	}
	return loadTable(results, bare+", no check", "HAProxy, no check"), nil
}

var bodies = benchCase{
	id:    "bodies",
	title: "Plain HTTP/1.1, answers of 1 MiB",
	about: "64 connections that are kept.",
	run: func(b *bench) (*table, error) {
		list := slices.Concat(
			[]participant{nginxServer(false, largePath, largeSize), haproxyServer(false, largePath, largeSize), bareServer(false, largePath, largeSize)},
			door{name: "Doorward, one session", path: largePath, size: largeSize}.participants(),
		)
		results, err := b.compare(list, b.wrk)
		if err != nil {
			return nil, err
		}
		perCPU := func(r round) float64 { return r.perCPU() * largeSize / (1 << 20) }
		t := newTable(results, "MiB/s", "MiB / CPU-s", "CPU", "memory", "× "+bare+", no check")
		for _, m := range results {
			if m.skipped == "" {
				t.Rows = append(t.Rows, []string{m.name, count(m.median(round.perSecond)), count(m.median(perCPU)), percent(m.median(round.busy)),
					mebibytes(m.memory), times(ratioTo(&m, results, bare+", no check", perCPU))})
			}
		}
		return t, nil
	},
}
