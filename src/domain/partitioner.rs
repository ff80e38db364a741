//! Which partition a key gives (`domain.md section 3`): both inputs and the alerts are spread in the same way.

use serde::{Deserialize, Serialize};

/// How a producer turns a record's key into a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Partitioner {
    /// Kafka's own, of the Java clients.
    #[default]
    Murmur2,
    /// librdkafka's `consistent`.
    Crc32,
}

impl Partitioner {
    /// The name in the config.
    pub const fn name(self) -> &'static str {
        match self {
            Partitioner::Murmur2 => "murmur2",
            Partitioner::Crc32 => "crc32",
        }
    }

    /// From its name in the config.
    pub fn from_name(name: &str) -> Option<Partitioner> {
        [Partitioner::Murmur2, Partitioner::Crc32].into_iter().find(|known| known.name() == name)
    }

    /// The partition, of `partitions` > 0, that a key gives.
    pub fn partition(self, key: &[u8], partitions: i32) -> i32 {
        let hash = match self {
            Partitioner::Murmur2 => murmur2(key) & 0x7fff_ffff,
            Partitioner::Crc32 => crc32fast::hash(key),
        };
        i32::try_from(i64::from(hash) % i64::from(partitions)).expect("below the number of partitions")
    }

    /// The partition that a customer lives on.
    pub fn partition_of(self, customer: i64, partitions: i32) -> i32 {
        self.partition(customer.to_string().as_bytes(), partitions)
    }
}

/// MurmurHash2 with Kafka's seed.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut h = 0x9747_b28c ^ length;
    let mut chunks = data.chunks_exact(4);
    for chunk in &mut chunks {
        let mut k = u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]).wrapping_mul(M);
        k = (k ^ (k >> 24)).wrapping_mul(M);
        h = h.wrapping_mul(M) ^ k;
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        for (i, byte) in rest.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * i);
        }
        h = h.wrapping_mul(M);
    }
    h = (h ^ (h >> 13)).wrapping_mul(M);
    h ^ (h >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_is_kafkas() {
        // Pairs of org.apache.kafka.common.utils.UtilsTest.
        for (text, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(text.as_bytes()).cast_signed(), hash, "{text}");
        }
    }

    #[test]
    fn crc32_is_the_common_one() {
        assert_eq!(
            Partitioner::Crc32.partition(b"123456789", i32::MAX),
            i32::try_from(0xcbf4_3926_i64 % i64::from(i32::MAX)).unwrap_or(-1)
        );
    }
}
