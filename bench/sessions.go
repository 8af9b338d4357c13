package main

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"sync"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/session"
	"github.com/doorward/doorward/internal/store"
)

// keepSessions writes the sessions into the store before Doorward starts, as
// logins would: through the package that keeps them. Nobody has logged in; a
// million real logins take longer than a bench. It returns the cookies that
// requests carry: as many as are in rotation.
func (s *site) keepSessions() ([]string, error) {
	file, err := store.OpenFile(filepath.Join(s.dir, "doorward.db"), nil)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	manager, err := session.New(session.Options{Store: file})
	if err != nil {
		return nil, err
	}
	defer manager.Close()
	origin := func(i int) string {
		if s.asks == forRoutes {
			return s.load.scheme + "://" + s.host(i)
		}
		return s.load.scheme + "://" + s.host(0)
	}
	cookies, err := logIn(s.ctx, manager, max(s.sessions, s.rotation), func(i int) session.Start {
		return session.Start{Origin: origin(i), Identity: someone(i, s.issuer, s.groups)}
	})
	if err != nil {
		return nil, err
	}
	return cookies[:s.rotation], nil
}

// someone is user i, who is in so many groups.
func someone(i int, issuer string, groups int) access.Identity {
	id := access.Identity{
		Provider: "corp", Issuer: issuer, Subject: fmt.Sprintf("4f1c2d%08d", i), Name: fmt.Sprintf("User Number %d", i),
		Email: fmt.Sprintf("user-%d@corp.example.com", i), EmailVerified: true, Username: fmt.Sprintf("user-%d", i),
		Login: access.Login{ACR: "mfa", AMR: []string{"otp", "pwd"}},
	}
	for n := range groups {
		id.Groups = append(id.Groups, fmt.Sprintf("group-%d", n))
	}
	return id
}

// logIn starts n sessions, many at a time, because a store writes in batches.
func logIn(ctx context.Context, manager *session.Manager, n int, who func(i int) session.Start) ([]string, error) {
	secrets := make([]string, n)
	var work sync.WaitGroup
	workers := min(n, 256)
	failed := make(chan error, workers)
	for worker := range workers {
		work.Go(func() {
			for i := worker; i < n && ctx.Err() == nil; i += workers {
				secret, _, err := manager.Start(ctx, who(i))
				if err != nil {
					failed <- err
					return
				}
				secrets[i] = secret
			}
		})
	}
	work.Wait()
	select {
	case err := <-failed:
		return nil, err
	default:
		return secrets, ctx.Err()
	}
}

// holdSessions is a process with n sessions in the memory store and nothing
// else. It says when they are there, and keeps them until it is told to end.
func holdSessions(ctx context.Context, n string) error {
	many, err := strconv.Atoi(n)
	if err != nil {
		return err
	}
	manager, err := session.New(session.Options{Store: store.NewMemory(nil)})
	if err != nil {
		return err
	}
	defer manager.Close()
	_, err = logIn(ctx, manager, many, func(i int) session.Start {
		return session.Start{Origin: "https://app.corp.example.com", Identity: someone(i, "https://login.corp.example.com", 5)}
	})
	if err != nil {
		return err
	}
	debug.FreeOSMemory() // as Doorward does once it is quiet
	fmt.Println(holding)
	<-ctx.Done()
	return nil
}

// holding is what the process says once it holds all of them.
const holding = "all sessions are there"
