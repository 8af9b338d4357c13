package store

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"time"
)

// The stored form of an item:
//
//	byte  0      format, 1
//	bytes 1-8    version of the item, big endian
//	bytes 9-16   expiry in microseconds since 1970, big endian; 0 is never
//	bytes 17-20  CRC-32C of the key, bytes 0-16 and the value
//	bytes 21-    value
//
// The checksum finds damage, and values that ended up under another key. It is
// no protection against someone who can write the file.
const (
	formatVersion = 1
	headerSize    = 21
	sumAt         = 17
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encode returns the stored form of item, at version 0 and without checksum;
// seal completes it.
func encode(item Item) []byte {
	data := make([]byte, headerSize, headerSize+len(item.Value))
	data[0] = formatVersion
	if !item.Expires.IsZero() {
		expires := item.Expires.UnixMicro()
		if expires == 0 {
			expires = 1 // 1970 is past, not never
		}
		binary.BigEndian.PutUint64(data[9:], uint64(expires))
	}
	return append(data, item.Value...)
}

// seal writes version and checksum into an encoded item.
func seal(key, data []byte, version uint64) {
	binary.BigEndian.PutUint64(data[1:], version)
	binary.BigEndian.PutUint32(data[sumAt:], checksum(key, data))
}

// decode reads the stored form. Its Value shares memory with data.
func decode(key, data []byte) (Item, error) {
	switch {
	case len(data) < headerSize:
		return Item{}, fmt.Errorf("%w: %q has %d bytes, at least %d are needed", ErrCorrupt, key, len(data), headerSize)
	case data[0] != formatVersion:
		return Item{}, fmt.Errorf("%w: %q has format %d, this doorward reads format %d", ErrCorrupt, key, data[0], formatVersion)
	case binary.BigEndian.Uint32(data[sumAt:]) != checksum(key, data):
		return Item{}, fmt.Errorf("%w: the checksum of %q does not match", ErrCorrupt, key)
	}
	item := Item{Key: string(key), Version: binary.BigEndian.Uint64(data[1:]), Value: data[headerSize:]}
	if expires := int64(binary.BigEndian.Uint64(data[9:])); expires != 0 {
		item.Expires = time.UnixMicro(expires).UTC()
	}
	return item, nil
}

func checksum(key, data []byte) uint32 {
	sum := crc32.Checksum(key, castagnoli)
	sum = crc32.Update(sum, castagnoli, data[:sumAt])
	return crc32.Update(sum, castagnoli, data[headerSize:])
}
