package proxy

import (
	"fmt"
	"testing"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/store"
)

// BenchmarkAssertions shows what an assertion costs that is signed already, with
// one session and with more than a processor has caches for.
func BenchmarkAssertions(b *testing.B) {
	for _, sessions := range []int{1, 10_000} {
		b.Run(fmt.Sprint("sessions=", sessions), func(b *testing.B) {
			c := &clock{epoch}
			s := signerAt(b, c, store.NewMemory(c.Now), 1)
			list := make([]*access.Request, sessions)
			for i := range list {
				list[i] = request(c)
				list[i].Session.ID = fmt.Sprintf("session-%d", i)
				list[i].Identity.Subject = fmt.Sprintf("user-%d", i)
				list[i].Session.Kept = &access.Kept{Of: &list[i].Identity}
			}
			groups := []string{"group-0", "group-1"}
			assert := func(i int) {
				if _, err := s.assert(b.Context(), "", "https://auth.example", list[i%sessions].Origin(), list[i%sessions], groups); err != nil {
					b.Fatal(err)
				}
			}
			for i := range list {
				assert(i)
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				assert(i)
			}
		})
	}
}
