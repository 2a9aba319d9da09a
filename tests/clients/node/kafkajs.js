// kafkajs: every compression, a group that commits and resumes, two members, transactions.
'use strict'

const { AssignerProtocol, CompressionCodecs, CompressionTypes, Kafka, logLevel } = require('kafkajs')
const SnappyCodec = require('kafkajs-snappy')
const lz4 = require('lz4-napi')
const { ZstdCodec } = require('zstd-codec')

const CODECS = ['none', 'gzip', 'snappy', 'lz4', 'zstd']
const RECORDS_PER_CODEC = 200
const PARTITIONS = 6
const TOTAL = CODECS.length * RECORDS_PER_CODEC
const DEADLINE_MS = 60_000
const TOPIC = 'kafkajs'

function ok(sentence) {
  console.log(`ok ${sentence}`)
}

function require_(condition, sentence, detail) {
  if (condition) return
  console.log(`not ok ${sentence}`)
  if (detail !== undefined) console.log('  ', detail)
  process.exit(1)
}

function must(condition, sentence, detail) {
  require_(condition, sentence, detail)
  ok(sentence)
}

async function until(what, condition) {
  const deadline = Date.now() + DEADLINE_MS
  while (!(await condition())) {
    require_(Date.now() < deadline, `${what} in time`)
    await new Promise(resolve => setTimeout(resolve, 20))
  }
}

const value = (codec, number) =>
  `${codec}-${String(number).padStart(5, '0')}-${'the same words compress well '.repeat(4)}`
const key = number => `key-${number % 20}`

function installCodecs(zstd) {
  CompressionCodecs[CompressionTypes.Snappy] = SnappyCodec
  CompressionCodecs[CompressionTypes.LZ4] = () => ({
    compress: encoder => lz4.compressFrame(encoder.buffer),
    decompress: buffer => lz4.decompressFrame(buffer),
  })
  CompressionCodecs[CompressionTypes.ZSTD] = () => ({
    compress: async encoder => Buffer.from(zstd.compress(encoder.buffer)),
    decompress: async buffer => Buffer.from(zstd.decompress(buffer)),
  })
}

async function produce(kafka, codec, compression, idempotent) {
  const producer = kafka.producer({ idempotent })
  await producer.connect()
  const messages = []
  for (let number = 0; number < RECORDS_PER_CODEC; number += 1) {
    messages.push({ key: key(number), value: value(codec, number) })
  }
  const answers = await producer.send({ topic: TOPIC, messages, compression, acks: -1 })
  await producer.disconnect()
  must(answers.every(answer => answer.errorCode === 0), `produces with ${codec}`, answers)
}

const seen = { values: [], offsets: new Map(), partitions: new Map() }

function take(partition, message) {
  const offset = BigInt(message.offset)
  const last = seen.offsets.get(partition)
  require_(last === undefined || offset > last, 'offsets only go up', `${partition}: ${offset} after ${last}`)
  seen.offsets.set(partition, offset)
  const name = message.key.toString()
  const first = seen.partitions.get(name) ?? partition
  require_(first === partition, 'a key stays in one partition', name)
  seen.partitions.set(name, first)
  seen.values.push(message.value.toString())
}

// Reads until `count` are there, and commits exactly what it took.
async function read(kafka, count) {
  const consumer = kafka.consumer({ groupId: 'kafkajs-group' })
  await consumer.connect()
  await consumer.subscribe({ topics: [TOPIC], fromBeginning: true })
  await consumer.run({
    autoCommit: false,
    eachMessage: async ({ partition, message }) => {
      if (seen.values.length >= count) return
      take(partition, message)
      const next = (BigInt(message.offset) + 1n).toString()
      await consumer.commitOffsets([{ topic: TOPIC, partition, offset: next }])
    },
  })
  await until(`${count} records are read`, () => seen.values.length >= count)
  await consumer.disconnect()
}

async function sharing(kafka, admin) {
  const members = [kafka.consumer({ groupId: 'kafkajs-sharing' }), kafka.consumer({ groupId: 'kafkajs-sharing' })]
  for (const member of members) {
    await member.connect()
    await member.subscribe({ topics: [TOPIC] })
    await member.run({ eachMessage: async () => {} })
  }
  const owned = []
  await until('two members share', async () => {
    const group = (await admin.describeGroups(['kafkajs-sharing'])).groups[0]
    owned.length = 0
    for (const member of group.members) {
      if (member.memberAssignment.length === 0) return false
      owned.push(AssignerProtocol.MemberAssignment.decode(member.memberAssignment).assignment[TOPIC] ?? [])
    }
    return group.state === 'Stable' && owned.length === 2 && owned.every(part => part.length === 3)
  })
  must(new Set(owned.flat()).size === PARTITIONS, 'two members share six partitions, none twice', owned)
  for (const member of members) await member.disconnect()
}

// Everything that readers see, of both kinds: kafkajs leaves out what was aborted unless it is told to read it.
async function readAll(kafka, topic, readUncommitted, count) {
  const values = []
  const consumer = kafka.consumer({ groupId: `kafkajs-read-${topic}-${readUncommitted}-${Date.now()}`, readUncommitted })
  await consumer.connect()
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  await consumer.run({ autoCommit: false, eachMessage: async ({ message }) => values.push(message.value.toString()) })
  await until(`${count} records of ${topic} are read`, () => values.length >= count)
  await consumer.disconnect()
  return values.sort()
}

async function transactions(kafka, admin) {
  const topic = 'kafkajs-transactions'
  await admin.createTopics({ topics: [{ topic, numPartitions: 1, replicationFactor: 1 }] })
  const settings = { transactionalId: 'kafkajs', maxInFlightRequests: 1, idempotent: true }
  const producer = kafka.producer(settings)
  await producer.connect()
  const send = (transaction, text) => transaction.send({ topic, messages: [{ value: text }] })
  const first = await producer.transaction()
  await send(first, 'a')
  await first.sendOffsets({ consumerGroupId: 'kafkajs-eos', topics: [{ topic: TOPIC, partitions: [{ partition: 0, offset: '5' }] }] })
  await first.commit()
  const second = await producer.transaction()
  await send(second, 'b')
  await second.sendOffsets({ consumerGroupId: 'kafkajs-eos', topics: [{ topic: TOPIC, partitions: [{ partition: 0, offset: '9' }] }] })
  await second.abort()
  const third = await producer.transaction()
  await send(third, 'c')
  await third.commit()
  must((await readAll(kafka, topic, false, 2)).join() === 'a,c', 'read_committed sees the committed transactions')
  must((await readAll(kafka, topic, true, 3)).join() === 'a,b,c', 'read_uncommitted sees the aborted one, too')
  const committed = await admin.fetchOffsets({ groupId: 'kafkajs-eos', topics: [TOPIC] })
  must(committed[0].partitions.some(({ partition, offset }) => partition === 0 && offset === '5'), 'offsets are committed with their transaction', committed[0].partitions)
  const open = await producer.transaction()
  await send(open, 'lost')
  const successor = kafka.producer(settings)
  await successor.connect()
  const next = await successor.transaction()
  await send(next, 'd')
  await next.commit()
  let fenced = false
  await open.commit().catch(() => { fenced = true })
  must(fenced, 'a fenced producer cannot commit')
  must((await readAll(kafka, topic, false, 3)).join() === 'a,c,d', 'what a fenced producer left open is aborted')
  await producer.disconnect()
  await successor.disconnect()
  await admin.deleteTopics({ topics: [topic] })
}

async function main() {
  installCodecs(await new Promise(resolve => ZstdCodec.run(made => resolve(new made.Simple()))))
  const kafka = new Kafka({ clientId: 'suite', brokers: [process.env.BOOTSTRAP], logLevel: logLevel.NOTHING })
  const admin = kafka.admin()
  await admin.connect()
  await admin.createTopics({ topics: [{ topic: TOPIC, numPartitions: PARTITIONS, replicationFactor: 1 }] })
  const types = [CompressionTypes.None, CompressionTypes.GZIP, CompressionTypes.Snappy, CompressionTypes.LZ4, CompressionTypes.ZSTD]
  for (const [number, codec] of CODECS.entries()) await produce(kafka, codec, types[number], number % 2 === 0)

  await read(kafka, TOTAL / 2)
  ok('a consumer of a group reads half and commits')
  await read(kafka, TOTAL)
  const expected = new Set(CODECS.flatMap(codec => Array.from({ length: RECORDS_PER_CODEC }, (_, number) => value(codec, number))))
  const once = seen.values.length === TOTAL && seen.values.every(read => expected.delete(read))
  must(once && expected.size === 0, 'the next goes on at the commits: everything once')
  const committed = await admin.fetchOffsets({ groupId: 'kafkajs-group', topics: [TOPIC] })
  const sum = committed[0].partitions.reduce((total, { offset }) => total + Math.max(0, Number(offset)), 0)
  must(sum === TOTAL, 'the committed offsets are those of the end', committed[0].partitions)
  await sharing(kafka, admin)
  await transactions(kafka, admin)
  await admin.deleteTopics({ topics: [TOPIC] })
  ok('deletes a topic')
  await admin.disconnect()
}

main().then(() => process.exit(0), error => {
  console.log('not ok the suite runs to its end')
  console.log(error)
  process.exit(1)
})
