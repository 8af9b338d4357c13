package devicecheck

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"

	"github.com/doorward/doorward/internal/access"
)

const (
	crowdStrikeURL = "https://api.crowdstrike.com"
	// How many agents are listed, and how many asked about, in one request.
	crowdStrikeList = 1000
	crowdStrikeAsk  = 100
)

// crowdStrike is the Zero Trust Assessment of CrowdStrike. A score says how well
// a device is set up; that it is high enough is the judgement of whoever
// configured the least one.
type crowdStrike struct {
	*remote
	key   string
	least int64
}

func newCrowdStrike(s Source, o outside) (*crowdStrike, error) {
	r, err := newRemote(orText(s.URL, crowdStrikeURL), o)
	if err != nil {
		return nil, err
	}
	r.useClientCredentials(r.home.JoinPath("oauth2/token"), s, "")
	return &crowdStrike{remote: r, key: s.Key, least: int64(s.MinScore)}, nil
}

// fetch implements fetcher. It lists the agents, then asks about all of them.
func (c *crowdStrike) fetch(ctx context.Context, have *inventory) (*inventory, error) {
	p, err := c.begin()
	if err != nil {
		return nil, err
	}
	agents, err := c.agents(ctx, p)
	if err != nil {
		return nil, err
	}
	for some := range slices.Chunk(agents, crowdStrikeAsk) {
		u := c.home.JoinPath("zero-trust-assessment/entities/assessments/v1")
		u.RawQuery = url.Values{"ids": some}.Encode()
		if _, _, err := p.take(ctx, u, jsonPath{"resources"}, p.adding(c.device)); err != nil {
			return nil, err
		}
	}
	return p.done(have)
}

// agents returns the ids of all agents that have a score.
func (c *crowdStrike) agents(ctx context.Context, p *pull) ([]string, error) {
	seen := map[string]bool{}
	var agents []string
	u := c.home.JoinPath("zero-trust-assessment/queries/assessments/v1")
	u.RawQuery = url.Values{"filter": {"score:>=0"}, "limit": {strconv.Itoa(crowdStrikeList)}}.Encode()
	around, err := p.byToken(ctx, u, jsonPath{"resources"}, "after", crowdStrikeNext, func(record map[string]any) error {
		id, _ := record["aid"].(string)
		switch {
		case !isAgent(id):
			return errors.New("a score is of no agent")
		case len(seen) == maxRecords:
			return fmt.Errorf("there are more than %d agents", maxRecords)
		case !seen[id]:
			seen[id] = true
			agents = append(agents, id)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	// The server counts, so that a list that ends too early is noticed.
	if count, ok := (jsonPath{"meta", "pagination", "total"}).in(around).(json.Number); ok && count.String() != strconv.Itoa(len(agents)) {
		return nil, fmt.Errorf("%s lists %d agents and counts %s", c.home.Host, len(agents), clip(count.String()))
	}
	return agents, nil
}

// crowdStrikeNext returns the token for the next page, which is called after or
// next.
func crowdStrikeNext(around any) (string, bool, error) {
	token, more, err := nextLink(jsonPath{"meta", "pagination", "after"}, around)
	if err == nil && !more {
		token, more, err = nextLink(jsonPath{"meta", "pagination", "next"}, around)
	}
	return token, more, err
}

// isAgent reports whether an id is one of an agent: 32 hexadecimal digits.
func isAgent(id string) bool {
	if len(id) != 32 {
		return false
	}
	for _, c := range []byte(id) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// crowdStrikeOS are the platforms of agents.
var crowdStrikeOS = map[string]string{"Win": "windows", "Mac": "macos", "Lin": "linux", "iOS": "ios", "Android": "android"}

func (c *crowdStrike) device(p *pull, record map[string]any) (access.Device, error) {
	if agent, _ := record["aid"].(string); !isAgent(agent) {
		return access.Device{}, errors.New(`an assessment has no agent's id "aid"`)
	}
	id, _ := record[c.key].(string) // without one it is left out
	d := access.Device{
		ID: id, OS: meaning(p.odd, "event_platform", record["event_platform"], crowdStrikeOS),
		SeenAt: moment(record["modified_time"]),
	}
	overall := jsonPath{"assessment", "overall"}.in(record)
	number, _ := overall.(json.Number)
	score, err := number.Int64()
	if err != nil || score < 0 || score > 100 {
		p.odd.note("assessment.overall", overall)
		return d, nil
	}
	d.Compliant = access.TriOf(score >= c.least)
	if d.Compliant == access.No {
		note(&d, fmt.Sprintf("CrowdStrike: the score is %d, below %d", score, c.least))
	}
	return d, nil
}
