import java.time.Duration;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.SubscriptionPattern;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.WakeupException;

/** Members of consumer groups, each in a thread of its own, that a suite opens, asks and closes by commands. */
public class ConsumerGroups {
    private static final Map<String, Member> MEMBERS = new ConcurrentHashMap<>();

    private static final class Member implements Runnable, ConsumerRebalanceListener {
        private final KafkaConsumer<String, String> consumer;
        private final ConcurrentLinkedQueue<String> read = new ConcurrentLinkedQueue<>();
        private final Set<TopicPartition> owned = ConcurrentHashMap.newKeySet();
        private final Thread thread = new Thread(this);
        private volatile int lost = 0;
        private volatile boolean ending = false;
        private volatile String failure = "none";

        private Member(Properties settings, String subscription) {
            consumer = new KafkaConsumer<>(settings);
            if (subscription.startsWith("~")) {
                consumer.subscribe(new SubscriptionPattern(subscription.substring(1)), this);
            } else {
                consumer.subscribe(List.of(subscription.split(",")), this);
            }
            thread.start();
        }

        @Override
        public void run() {
            try (consumer) {
                while (!ending) {
                    for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(200))) {
                        read.add(record.value());
                    }
                }
            } catch (WakeupException end) {
                // It is told to end.
            } catch (Exception error) {
                failure = error.getClass().getSimpleName();
            }
            owned.clear();
        }

        @Override
        public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
            owned.addAll(partitions);
        }

        @Override
        public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
            owned.removeAll(partitions);
        }

        @Override
        public void onPartitionsLost(Collection<TopicPartition> partitions) {
            lost++;
            owned.removeAll(partitions);
        }

        private void close() throws Exception {
            ending = true;
            consumer.wakeup();
            thread.join();
        }
    }

    private static String describe(Admin admin, String group) throws Exception {
        ConsumerGroupDescription told = admin.describeConsumerGroups(List.of(group)).describedGroups().get(group).get();
        String members = told.members().stream()
            .map(member -> member.memberEpoch().map(String::valueOf).orElse("-") + ":" + member.groupInstanceId().orElse("-")
                + ":" + member.assignment().topicPartitions().size() + ":" + (member.upgraded().orElse(false) ? "new" : "classic"))
            .sorted().collect(Collectors.joining(" "));
        String epoch = told.groupEpoch().map(String::valueOf).orElse("-");
        return String.join(" ", told.type().toString(), told.groupState().toString(), told.partitionAssignor(), epoch, members);
    }

    public static void main(String[] arguments) throws Exception {
        String bootstrap = arguments[0];
        Admin admin = Admin.create(Map.of("bootstrap.servers", bootstrap));
        Commands commands = new Commands();
        commands.add("open", words -> {
            Properties settings = Commands.settings(bootstrap, words, 4);
            settings.putIfAbsent("group.protocol", "consumer");
            settings.put("group.id", words[2]);
            settings.put("auto.offset.reset", "earliest");
            settings.put("metadata.max.age.ms", "500");
            MEMBERS.put(words[1], new Member(settings, words[3]));
            return "open";
        });
        commands.add("owned", words -> MEMBERS.get(words[1]).owned.stream().map(TopicPartition::toString).sorted().collect(Collectors.joining(" ")));
        commands.add("read", words -> String.join(" ", MEMBERS.get(words[1]).read));
        commands.add("lost", words -> String.valueOf(MEMBERS.get(words[1]).lost));
        commands.add("failure", words -> MEMBERS.get(words[1]).failure);
        commands.add("close", words -> {
            MEMBERS.get(words[1]).close();
            return "closed";
        });
        commands.add("describe", words -> describe(admin, words[1]));
        commands.serve();
        System.exit(0);
    }
}
