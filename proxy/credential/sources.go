package credential

import (
	"context"
	"errors"
)

// Sources asks each source in turn; the first that knows a credential wins, with
// its own longest namespace. A source in trouble does not keep the others from
// answering, but where none of them knows, its error is the answer: whether the
// request might go out anonymously only that source could have said.
type Sources []Source

// Lookup is [Source.Lookup].
func (s Sources) Lookup(ctx context.Context, registry, repository string) (Credential, error) {
	var troubles []error
	for _, source := range s {
		c, err := source.Lookup(ctx, registry, repository)
		if err != nil {
			troubles = append(troubles, err)
			continue
		}
		if !c.IsZero() {
			return c, nil
		}
	}
	return Credential{}, errors.Join(troubles...)
}
